"""Where the tiles of Winograd's convolutions lie in a map; see `vos_shared.layers.winograd`."""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

import torch
from torch import Tensor

SIDE: Final = 4
"""Outputs of a tile along each axis."""
OUTPUTS: Final = range(SIDE)
INPUTS: Final = range(-1, SIDE + 1)
"""Cells along each axis that a tile gives, and that it needs, from its first output on; `dilation` pixels apart."""


class Grid(NamedTuple):
    """The size of the maps of a convolution, [batch, C, height, width], and its dilation."""

    batch: int
    height: int
    width: int
    dilation: int


class Strip(NamedTuple):
    """The places of some tiles, row by row and tile by tile; int64.

    Attributes:
        tiles: which ones.
        pixels: index of the pixel at each place, any where the place is outside of the map.
        outside: those places.
        targets: as `pixels`, but one behind the last pixel for places that are outside.
    """

    tiles: slice
    pixels: Tensor
    outside: Tensor
    targets: Tensor


@lru_cache(maxsize=64)
def tile_count(grid: Grid) -> int:
    """Number of tiles that cover the maps."""
    rows, columns = (len(_firsts(size, grid.dilation)) for size in (grid.height, grid.width))
    return grid.batch * rows * columns


@lru_cache(maxsize=128)
@torch.inference_mode(False)  # Else they could not be used outside of inference mode.
def strips_of(grid: Grid, taps: range, tiles: range, length: int) -> list[Strip]:
    """Cut a range of tiles into strips.

    Args:
        grid: of the tiles.
        taps: `INPUTS` or `OUTPUTS`; each tile has len(taps)^2 places.
        tiles: of all the tiles of the grid.
        length: tiles of a strip; the last one may be shorter.
    """
    pixels = _pixels(grid, taps)[tiles.start : tiles.stop]
    found = []
    for first in range(0, len(tiles), length):
        flat = pixels[first : first + length].flatten()
        outside = (flat < 0).nonzero()[:, 0]
        targets = flat.index_fill(0, outside, grid.batch * grid.height * grid.width)
        found.append(Strip(slice(first, first + length), flat.clamp_min(0), outside, targets))
    return found


def _pixels(grid: Grid, taps: range) -> Tensor:
    """Index of the pixel at each place of each tile, -1 outside of the map: int64 [tiles, len(taps)^2]."""
    batch, height, width, dilation = grid
    offsets = dilation * torch.tensor(taps)
    rows, columns = (_firsts(size, dilation)[:, None] + offsets for size in (height, width))
    rows, columns = rows[:, None, :, None], columns[:, None, :]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    pixels = (rows * width + columns).flatten(2).flatten(0, 1)  # [tiles, places]
    pixels = pixels + height * width * torch.arange(batch)[:, None, None]
    return torch.where(inside.flatten(2).flatten(0, 1), pixels, -1).flatten(0, 1)


def _firsts(size: int, dilation: int) -> Tensor:
    """The first cells of the tiles of one axis."""
    cells = torch.arange(size)
    return cells[cells // dilation % SIDE == 0]
