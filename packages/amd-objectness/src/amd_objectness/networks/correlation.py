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
_BLOCK: Final = 16
"""Neighbouring cells of a row that are compared at once. Larger blocks compute more products that are not used."""
_REACH: Final = _BLOCK + 2 * RADIUS
"""Cells of each row of the other map that a block is compared with."""


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
    """Blocks of a row against nine rows around it, as matrix products, of which the diagonals are the displacements."""

    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor) -> Tensor:
        count, channels, height, width = ctx.shape = first.shape
        own = _in_blocks(first.permute(0, 2, 3, 1)).reshape(-1, _BLOCK, channels)
        ctx.save_for_backward(own, second)
        products = own @ _around(second).transpose(1, 2)
        volume = _diagonals(products).reshape(count, height, -1, DISPLACEMENTS)[:, :, :width] / channels
        return volume.permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        own, second = ctx.saved_tensors
        count, channels, height, width = ctx.shape
        gradient = _in_blocks(gradients[0].permute(0, 2, 3, 1)) / channels
        products = own.new_zeros(len(own), _BLOCK, SIDE * _REACH)
        _diagonals(products).copy_(gradient.reshape(-1, _BLOCK, SIDE, SIDE))
        of_first = (products @ _around(second)).view(count, height, -1, channels)[:, :, :width]
        rows = (products.transpose(1, 2) @ own).view(count, height, -1, SIDE, _REACH, channels)
        of_second = own.new_zeros(count, height + 2 * RADIUS, rows.shape[2] + 1, _BLOCK, channels)
        for dy in range(SIDE):
            target = of_second[:, dy : dy + height]
            target[:, :, :-1] += rows[:, :, :, dy, :_BLOCK]
            target[:, :, 1:, : 2 * RADIUS] += rows[:, :, :, dy, _BLOCK:]
        inside = of_second.flatten(2, 3)[:, RADIUS : RADIUS + height, RADIUS : RADIUS + width]
        return of_first.permute(0, 3, 1, 2), inside.permute(0, 3, 1, 2)


def _in_blocks(rows: Tensor) -> Tensor:
    """Rows [N, h, w, C], with zeros up to a multiple of `_BLOCK` cells."""
    return F.pad(rows, (0, 0, 0, -rows.shape[2] % _BLOCK))


def _around(second: Tensor) -> Tensor:
    """The cells that each block is compared with, of maps [N, C, h, w]: [N h blocks, 9 _REACH, C], zero outside."""
    count, channels, height, width = second.shape
    missing = -width % _BLOCK
    padded = F.pad(second.permute(0, 2, 3, 1), (0, 0, RADIUS, RADIUS + missing, RADIUS, RADIUS)).contiguous()
    image, row, cell, channel = padded.stride()
    shape = (count, height, (width + missing) // _BLOCK, SIDE, _REACH, channels)
    windows = padded.as_strided(shape, (image, row, _BLOCK * cell, row, cell, channel))
    return windows.reshape(-1, SIDE * _REACH, channels)


def _diagonals(products: Tensor) -> Tensor:
    """The products of cell i with cells i to i + 8 of each row: a view [M, _BLOCK, 9, 9] of [M, _BLOCK, 9 _REACH]."""
    strides = (_BLOCK * SIDE * _REACH, SIDE * _REACH + 1, _REACH, 1)
    return products.as_strided((len(products), _BLOCK, SIDE, SIDE), strides)
