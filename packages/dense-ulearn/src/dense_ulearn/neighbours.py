"""Exact search for the cells of earlier frames that are most similar to the cells of a new frame.

A dense search compares every cell of the new frame with every cell of every context frame and then masks what lies
outside the radius. Here a tile of queries is compared only with the window of cells within the radius, one column of
the map after the other. Features are stored so that the cells of a column, of all context frames, are contiguous in
memory. So a column of a window is one matrix product without a copy and without cells beyond the circle; while it is in
the processor's cache, several tiles that lie one below the other use it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

GROUP = 20  # cells of a reference frame that the search treats as one group


class Grain(NamedTuple):
    """Sizes of the pieces of the search, for a kind of device."""

    rows: int
    """Rows of a tile."""
    columns: int
    """Columns of a tile."""
    stacked: int
    """Tiles in a block, one below the other; they share columns of the context; similarities of all are in memory."""
    by_column: bool
    """Search a window column by column, without copies and cells beyond the circle, or as one rectangle."""
    at_once: int
    """Similarities to a reference frame held at once."""


CPU = Grain(6, 8, stacked=5, by_column=True, at_once=2**20)  # Kernels for AVX-512 work on 48 queries.
GPU = Grain(24, 16, stacked=1, by_column=False, at_once=2**24)  # Too much work costs less than many kernels.


class Candidates(NamedTuple):
    """The most similar cells of each of q queries, in no particular order."""

    similarity: Tensor
    """float32 [q, k]; -inf where fewer than k cells lie within the radius."""
    place: Tensor
    """int64 [q, k]: slot * h * w + cell, cells counted row by row."""


class Area(NamedTuple):
    """A rectangle of cells, half-open."""

    top: int
    bottom: int
    left: int
    right: int


class Tiling:
    """Cuts a feature map of h x w cells into blocks, and those into tiles.

    Args:
        height, width: h and w.
        radius: only cells strictly nearer than this (Euclidean, in cells) are searched.
        grain: the size of the pieces.
    """

    def __init__(self, height: int, width: int, radius: float, grain: Grain = CPU) -> None:
        self.height, self.width, self.grain = height, width, grain
        # The smallest squared distance that is too far; a cell is always within the radius of itself.
        self._beyond = max(1, math.ceil(min(radius, height + width) ** 2))

    @property
    def cells(self) -> int:
        """Number of cells of a map."""
        return self.height * self.width

    def blocks(self) -> list[Area]:
        """Areas that cover the map, each of a few tiles one below the other."""
        rows, columns = self.grain.rows * self.grain.stacked, self.grain.columns
        return [
            Area(top, min(self.height, top + rows), left, min(self.width, left + columns))
            for left in range(0, self.width, columns)
            for top in range(0, self.height, rows)
        ]

    def tiles(self, block: Area) -> list[Area]:
        """The tiles of a block from top to bottom."""
        tops = range(block.top, block.bottom, self.grain.rows)
        return [block._replace(top=top, bottom=min(block.bottom, top + self.grain.rows)) for top in tops]

    def window(self, tile: Area) -> list[Area]:
        """Cells within the radius of a tile; as one rectangle, a few more."""
        reach = self._reach(0)
        left, right = max(0, tile.left - reach), min(self.width, tile.right + reach)
        if not self.grain.by_column:
            return [Area(*self._rows(tile, reach), left, right)]
        away = [max(tile.left - x, x - tile.right + 1, 0) for x in range(left, right)]
        return [Area(*self._rows(tile, self._reach(across)), x, x + 1) for x, across in enumerate(away, left)]

    def _rows(self, tile: Area, reach: int) -> tuple[int, int]:
        return max(0, tile.top - reach), min(self.height, tile.bottom + reach)

    def _reach(self, across: int) -> int:
        """Largest distance in rows, within the radius, of a cell `across` columns away."""
        return math.isqrt(self._beyond - across**2 - 1)

    def cells_of(self, window: Sequence[Area]) -> Tensor:
        """Flat positions of a window's cells in the map, int64 [n], one column after the other."""
        numbers = torch.arange(self.cells).view(self.height, self.width).T
        return torch.cat([numbers[left:right, top:bottom].flatten() for top, bottom, left, right in window])

    def outside(self, tile: Area, cells: Tensor) -> Tensor:
        """Which cells [n] lie outside the radius of each query of a tile: bool [n, q]."""
        x, y = (cells % self.width)[:, None], (cells // self.width)[:, None]
        across = (x - torch.arange(tile.left, tile.right, device=cells.device)).square()  # [n, columns]
        down = (y - torch.arange(tile.top, tile.bottom, device=cells.device)).square()  # [n, rows]
        return (down[:, :, None] + across[:, None] >= self._beyond).flatten(1)


class ContextFrames:
    """Features of the latest frames, each in a numbered slot, searched within the radius.

    Args:
        tiling: how the map is cut.
        dtype: float32, or half precision to save memory.
    """

    def __init__(self, tiling: Tiling, dtype: torch.dtype) -> None:
        self.tiling, self.dtype = tiling, dtype
        self._bank: Tensor | None = None  # [w, h, slots, D]
        self._reachable: dict[Area, tuple[Tensor, Tensor]] = {}  # by tile: cells of its window, and which are outside

    def put(self, slot: int, features: Tensor, capacity: int) -> None:
        """Store a frame's features [h, w, D]; the memory doubles when needed, up to ``capacity`` slots."""
        held = 0 if self._bank is None else self._bank.shape[2]
        if slot >= held:
            size = min(capacity, max(slot + 1, 2 * held))
            bank = features.new_zeros(self.tiling.width, self.tiling.height, size, features.shape[2], dtype=self.dtype)
            if self._bank is not None:
                bank[:, :, :held] = self._bank
            self._bank = bank
        assert self._bank is not None
        self._bank[:, :, slot] = features.transpose(0, 1)

    def nearest(self, block: Area, queries: Tensor, slot_sets: Sequence[tuple[int, ...]], k: int) -> list[Candidates]:
        """For each set of slots the k most similar cells within the radius of each query.

        Args:
            block: area of the queries.
            queries: float32 [rows * columns, D], all cells of the block.
            slot_sets: sets of slots, none of them empty.
            k: number of neighbours.
        """
        if not slot_sets:
            return []
        tiles = self.tiling.tiles(block)
        windows = [self.tiling.window(tile) for tile in tiles]
        similarities = self._similarities(windows, queries.split(self.tiling.grain.rows * (block.right - block.left)))
        sets = [torch.tensor(slots, device=queries.device) for slots in slot_sets]
        found = [
            self._best(part, *self._reach(tile, window, queries.device), sets, k)
            for tile, window, part in zip(tiles, windows, similarities, strict=True)
        ]
        return [Candidates(*map(torch.cat, zip(*parts, strict=True))) for parts in zip(*found, strict=True)]

    def _reach(self, tile: Area, window: list[Area], device: torch.device) -> tuple[Tensor, Tensor]:
        if tile not in self._reachable:
            cells = self.tiling.cells_of(window).to(device)
            self._reachable[tile] = cells, self.tiling.outside(tile, cells)
        return self._reachable[tile]

    def _similarities(self, windows: list[list[Area]], queries: Sequence[Tensor]) -> list[Tensor]:
        """Similarities of the cells of each tile's window to the tile's queries [q, D]: [n, slots, q]."""
        assert self._bank is not None
        slots, turned = self._bank.shape[2], [part.T.contiguous() for part in queries]
        sizes = [[(bottom - top) * (right - left) * slots for top, bottom, left, right in window] for window in windows]
        similarities = [part.new_empty(sum(size), part.shape[1]) for part, size in zip(turned, sizes, strict=True)]
        places = [part.split(size) for part, size in zip(similarities, sizes, strict=True)]
        for number in range(len(windows[0])):  # All tiles of a block have the same columns.
            for window, part, place in zip(windows, turned, places, strict=True):
                top, bottom, left, right = window[number]
                torch.mm(self._bank[left:right, top:bottom].float().flatten(0, 2), part, out=place[number])
        return [part.unflatten(0, (-1, slots)) for part in similarities]

    def _best(
        self, similarities: Tensor, cells: Tensor, outside: Tensor, slot_sets: Sequence[Tensor], k: int
    ) -> list[Candidates]:
        """The k best of a tile's similarities [n, slots, q] for each set of slots."""
        found = []
        for chosen in slot_sets:
            part = similarities if len(chosen) == similarities.shape[1] else similarities[:, chosen]
            similarity, index = largest(part, k, outside)
            place = chosen[index % len(chosen)] * self.tiling.cells + cells[index // len(chosen)]
            found.append(Candidates(similarity, place))
        return found


class ReferenceFrame:
    """Features of one frame that is searched as a whole, whatever the distance.

    Args:
        features: [h, w, D].
        dtype: as for `ContextFrames`.
        grain: gives the number of similarities held at once.
    """

    def __init__(self, features: Tensor, dtype: torch.dtype, grain: Grain = CPU) -> None:
        self.grain = grain
        flat = features.flatten(0, 1).to(dtype)
        self.cells = len(flat)
        self._groups = F.pad(flat, (0, 0, 0, -self.cells % GROUP))  # [n * GROUP, D]

    def nearest(self, queries: Tensor, slot: int, k: int) -> Candidates:
        """The k most similar cells for queries float32 [q, D]; ``slot`` is the number of the frame in the result."""
        at_once = max(self.grain.rows * self.grain.columns, self.grain.at_once // len(self._groups))
        found = [self._search(part, k) for part in queries.split(at_once)]
        similarity, cell = map(torch.cat, zip(*found, strict=True))
        # In a map of fewer than k cells, padding cells fill up; their weight is 0, but their index must exist.
        return Candidates(similarity, cell.clamp(max=self.cells - 1) + slot * self.cells)

    def _search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        similarities = self._groups.float() @ queries.T.contiguous()
        similarities[self.cells :] = -torch.inf
        return largest(similarities.unflatten(0, (-1, GROUP)), k)


def largest(similarities: Tensor, k: int, outside: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The k largest of n * m values for each query.

    They are in the k groups with the largest maxima, so only k * m values need sorting.

    Args:
        similarities: [n, m, q]: n groups of m values for each of q queries.
        k: how many.
        outside: bool [n, q], groups to leave out.

    Returns:
        Values and indices into n * m, both [q, k]; -inf and index 0 where there are fewer than k.
    """
    n, m, _ = similarities.shape
    maxima = similarities.amax(1)  # [n, q]
    if outside is not None:
        maxima.masked_fill_(outside, -torch.inf)
    top, groups = maxima.T.contiguous().topk(min(k, n))  # [q, k]
    wanted = groups.T[:, None].expand(-1, m, -1)  # [k, m, q]
    members = similarities.gather(0, wanted).masked_fill_(top.T.isneginf()[:, None], -torch.inf)
    values, place = members.flatten(0, 1).T.contiguous().topk(min(k, members.shape[0] * m))
    index = groups.gather(1, place // m) * m + place % m
    missing = k - values.shape[1]
    return F.pad(values, (0, missing), value=-torch.inf), F.pad(index, (0, missing))


def merge(candidates: Sequence[Candidates], k: int) -> Candidates:
    """The k most similar of several lists; a list that is passed twice counts twice."""
    similarity = torch.cat([found.similarity for found in candidates], 1)
    place = torch.cat([found.place for found in candidates], 1)
    similarity, best = similarity.topk(min(k, similarity.shape[1]))
    return Candidates(similarity, place.gather(1, best))
