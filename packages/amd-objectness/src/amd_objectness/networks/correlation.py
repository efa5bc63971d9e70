"""The correlation of two feature maps, without a compiled extension (specification, 4.3)."""

from __future__ import annotations

from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

RADIUS: Final = 4
"""Largest displacement, in cells."""
SIDE: Final = 2 * RADIUS + 1
DISPLACEMENTS: Final = SIDE**2
_BLOCK: Final = 2 * RADIUS
"""Rows and columns of cells that are compared at once. Larger blocks compute more products that are not used."""
_WINDOW: Final = _BLOCK + 2 * RADIUS
"""Rows and columns of the other map that a block is compared with; twice the block, so that windows overlap by half."""


def correlation(first: Tensor, second: Tensor) -> Tensor:
    """Mean over channels of first(y, x) second(y + dy, x + dx); `second` is zero outside of the map.

    Args:
        first: features, float [N, C, h, w].
        second: the same of the other frame.

    Returns:
        float [N, 81, h, w]; channel (dy + 4) 9 + (dx + 4), each from -4 to 4.
    """
    volume: Tensor = _Correlation.apply(first, second.to(first.dtype))
    return volume


class _Correlation(torch.autograd.Function):
    """Blocks against the windows around them, as matrix products; some of their diagonals are the displacements."""

    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor) -> Tensor:
        ctx.save_for_backward(first, second)
        found = _displacements(_blocks(first) @ _windows(second).transpose(3, 4)).transpose(2, 3)
        volume = torch.div(found, first.shape[1], out=found.new_empty(found.shape))
        return _map(volume.flatten(5), first)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        first, second = ctx.saved_tensors
        blocks, of_displacements = _blocks(first), _blocks(gradients[0]) / first.shape[1]
        products = blocks.new_zeros(*blocks.shape[:4], _WINDOW**2)
        found = _displacements(products)
        found.copy_(of_displacements.view(found.shape))
        of_blocks = (products @ _windows(second)).unflatten(3, (_BLOCK, _BLOCK)).transpose(2, 3)
        of_windows = products.transpose(3, 4) @ blocks
        return _map(of_blocks, first), _of_windows(of_windows, first)


def _blocks(maps: Tensor) -> Tensor:
    """Blocks of maps [N, C, h, w], with zeros up to whole ones: [N, rows, columns, _BLOCK^2, C]."""
    height, width = maps.shape[2:]
    cells = F.pad(maps.permute(0, 2, 3, 1), (0, 0, 0, -width % _BLOCK, 0, -height % _BLOCK))
    rows, columns = cells.shape[1] // _BLOCK, cells.shape[2] // _BLOCK
    blocks = cells.reshape(len(cells), rows, _BLOCK, columns, _BLOCK, cells.shape[3])
    return blocks.transpose(2, 3).flatten(3, 4)


def _map(blocks: Tensor, like: Tensor) -> Tensor:
    """The cells of blocks [N, rows, _BLOCK, columns, _BLOCK, C] as a map [N, C, h, w], of the size of another one."""
    height, width = like.shape[2:]
    return blocks.flatten(3, 4).flatten(1, 2)[:, :height, :width].permute(0, 3, 1, 2)


def _windows(maps: Tensor) -> Tensor:
    """The windows of all blocks of maps [N, C, h, w], zero outside: [N, rows, columns, _WINDOW^2, C]."""
    height, width = maps.shape[2:]
    cells = F.pad(
        maps.permute(0, 2, 3, 1),
        (0, 0, RADIUS, RADIUS + -width % _BLOCK, RADIUS, RADIUS + -height % _BLOCK),
    )
    windows = cells.unfold(1, _WINDOW, _BLOCK).unfold(2, _WINDOW, _BLOCK)  # [N, rows, columns, C, _WINDOW, _WINDOW]
    return windows.permute(0, 1, 2, 4, 5, 3).flatten(3, 4)


def _displacements(products: Tensor) -> Tensor:
    """The products of each cell with the 9x9 cells around it, a view of those of blocks with their windows.

    [N, rows, columns, _BLOCK^2, _WINDOW^2] to [N, rows, columns, _BLOCK, _BLOCK, 9, 9].
    """
    cell = products.stride(3)
    strides = (_BLOCK * cell + _WINDOW, cell + 1, _WINDOW, 1)  # From a cell to the next, and around it.
    return products.as_strided((*products.shape[:3], _BLOCK, _BLOCK, SIDE, SIDE), (*products.stride()[:3], *strides))


def _of_windows(gradients: Tensor, like: Tensor) -> Tensor:
    """The gradient of a map from that of its windows, each of which is four parts of the size of a block."""
    count, rows, columns = gradients.shape[:3]
    parts = gradients.unflatten(3, (2, _BLOCK, 2, _BLOCK)).movedim(5, 4)  # [N, rows, columns, 2, 2, _BLOCK, _BLOCK, C]
    cells = gradients.new_zeros(count, rows + 1, _BLOCK, columns + 1, _BLOCK, gradients.shape[4])
    for down in (0, 1):
        for right in (0, 1):
            part = parts[:, :, :, down, right].transpose(2, 3)
            cells[:, down : down + rows, :, right : right + columns] += part
    height, width = like.shape[2:]
    inside = slice(RADIUS, RADIUS + height), slice(RADIUS, RADIUS + width)
    return cells.flatten(3, 4).flatten(1, 2)[:, *inside].permute(0, 3, 1, 2)
