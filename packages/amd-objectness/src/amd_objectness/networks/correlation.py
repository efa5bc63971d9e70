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
_BLOCK: Final = 8
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
        count, channels, height, width = first.shape
        blocks = -(-width // _BLOCK)
        missing = blocks * _BLOCK - width
        own = F.pad(first.permute(0, 2, 3, 1), (0, 0, 0, missing)).reshape(-1, _BLOCK, channels)
        padded = F.pad(second.permute(0, 2, 3, 1), (0, 0, RADIUS, RADIUS + missing, RADIUS, RADIUS)).contiguous()
        image, row, cell, channel = padded.stride()
        around = padded.as_strided(
            (count, height, blocks, SIDE, _REACH, channels), (image, row, _BLOCK * cell, row, cell, channel)
        ).reshape(len(own), SIDE * _REACH, channels)
        products = own @ around.transpose(1, 2)  # [N h blocks, 8, 9 * 16]
        ctx.save_for_backward(own, around)
        ctx.shape = first.shape
        volume = _diagonals(products).reshape(count, height, blocks * _BLOCK, DISPLACEMENTS)[:, :, :width] / channels
        return volume.permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        own, around = ctx.saved_tensors
        count, channels, height, width = ctx.shape
        blocks = -(-width // _BLOCK)
        gradient = F.pad(gradients[0].permute(0, 2, 3, 1), (0, 0, 0, blocks * _BLOCK - width)) / channels
        products = own.new_zeros(len(own), _BLOCK, SIDE * _REACH)
        _diagonals(products).copy_(gradient.reshape(-1, _BLOCK, SIDE, SIDE))
        of_first = (products @ around).view(count, height, -1, channels)[:, :, :width]
        rows = (products.transpose(1, 2) @ own).view(count, height, blocks, SIDE, _REACH, channels)
        of_second = own.new_zeros(count, height + 2 * RADIUS, (blocks + 1) * _BLOCK, channels)
        for dy in range(SIDE):
            target = of_second[:, dy : dy + height]
            target[:, :, :-_BLOCK] += rows[:, :, :, dy, :_BLOCK].flatten(2, 3)
            target[:, :, _BLOCK:] += rows[:, :, :, dy, _BLOCK:].flatten(2, 3)
        inside = of_second[:, RADIUS : RADIUS + height, RADIUS : RADIUS + width]
        return of_first.permute(0, 3, 1, 2), inside.permute(0, 3, 1, 2)


def _diagonals(products: Tensor) -> Tensor:
    """The products of cell i with cells i to i + 8 of each row: a view [M, 8, 9, 9] of contiguous [M, 8, 9 * 16]."""
    strides = (_BLOCK * SIDE * _REACH, SIDE * _REACH + 1, _REACH, 1)
    return products.as_strided((len(products), _BLOCK, SIDE, SIDE), strides)
