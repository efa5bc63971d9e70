"""Sampling of maps along a flow, and occlusion (specification, 5.1 and 5.2)."""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

OCCLUDED_BELOW: Final = 0.2
"""Pixels on which less of the other frame falls are occluded."""


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, corners aligned, without antialiasing: [N, C, h, w] to [N, C, *size]."""
    return F.interpolate(maps, size, mode="bilinear", align_corners=True)


def moved_coordinates(flow: Tensor) -> tuple[Tensor, Tensor]:
    """Column and row, in pixels, that each pixel moves to: flow [N, 2, H, W] to twice [N, H, W]."""
    height, width = flow.shape[2:]
    columns = torch.arange(width, dtype=flow.dtype, device=flow.device)
    rows = torch.arange(height, dtype=flow.dtype, device=flow.device)
    return columns + flow[:, 0], rows[:, None] + flow[:, 1]


def warp(maps: Tensor, flow: Tensor) -> Tensor:
    """Sample maps where the flow points to; beyond the border, its values are repeated.

    Args:
        maps: of the other frame, float [N, C, H, W].
        flow: on the grid of this frame, in pixels, float32 [N, 2, H, W]; channel 0 is x.

    Returns:
        The other frame's maps on the grid of this frame, float [N, C, H, W].
    """
    height, width = flow.shape[2:]
    columns, rows = moved_coordinates(flow)
    grid = torch.stack([2 * columns / max(width - 1, 1) - 1, 2 * rows / max(height - 1, 1) - 1], 3)
    return F.grid_sample(maps.to(grid.dtype), grid, mode="bilinear", padding_mode="border", align_corners=True)


@torch.no_grad()
def splat_counts(flow: Tensor) -> Tensor:
    """How much of the other frame falls on each pixel.

    Args:
        flow: on the grid of the other frame, pointing into this one, in pixels, float [N, 2, H, W].

    Returns:
        float [N, 1, H, W], at most 1; each pixel is shared out bilinearly to its four neighbours within the frame.
    """
    pairs, _, height, width = flow.shape
    columns, rows = moved_coordinates(flow)
    left, top = columns.floor(), rows.floor()
    counts = flow.new_zeros(pairs, height * width)
    for column, row in ((left, top), (left + 1, top), (left, top + 1), (left + 1, top + 1)):
        weight = (1 - (columns - column).abs()) * (1 - (rows - row).abs())
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        cell = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
        cell = cell.nan_to_num().long()  # For a flow of NaN; the loss then reports that training has diverged.
        counts.scatter_add_(1, cell.flatten(1), torch.where(inside, weight, 0).flatten(1))
    return counts.view(pairs, 1, height, width).clamp(0, 1)


def visibility(flow: Tensor) -> Tensor:
    """1 where the other frame shows a pixel, 0 where it is occluded; carries no gradient.

    Args:
        flow: as in `splat_counts`.

    Returns:
        float [N, 1, H, W].
    """
    return (splat_counts(flow) >= OCCLUDED_BELOW).to(flow.dtype)
