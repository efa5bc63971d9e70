"""Exact search for the cells of earlier frames that resemble the cells of a new frame most.

A dense search compares every cell of the new frame with every cell of every context frame and then hides what lies
outside the radius. Here tiles of queries meet only the window that the radius can reach, column by column of the map:
features are stored so that the cells of a column, of all context frames, lie side by side in memory. A column of a
window then is one matrix product without any copying, no longer than the circle asks for, and while it is in the
processor's cache it serves several tiles, one below the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

CPU_TILE = (6, 8)  # rows, columns: kernels for AVX-512 work on 48 queries
GPU_TILE = (24, 16)  # Better to compute too much than to start many small kernels.
TILES_AT_ONCE = 5  # that share a column of the context; the scores of all are in memory
GROUP = 20  # cells of a reference frame that the search treats as one group
SCORES_AT_ONCE = 2**20  # similarities to a reference frame held at once: 4 MiB


class Candidates(NamedTuple):
    """The most similar cells of each of q queries, in no particular order."""

    similarity: Tensor
    """float32 [q, k]; -inf fills up where fewer than k cells can be reached."""
    place: Tensor
    """int64 [q, k]: slot * h * w + cell, cells counted row by row."""


class Area(NamedTuple):
    """A rectangle of cells, half-open."""

    top: int
    bottom: int
    left: int
    right: int


class Run(NamedTuple):
    """Cells of a column, half-open."""

    column: int
    top: int
    bottom: int


class Tiling:
    """Cuts a feature map of h x w cells into blocks, and those into tiles.

    Args:
        height, width: h and w.
        radius: only cells that are strictly nearer than this (Euclidean, in cells) can be reached.
        tile: rows and columns of a tile.
    """

    def __init__(self, height: int, width: int, radius: float, tile: tuple[int, int] = CPU_TILE) -> None:
        self.height, self.width, self.tile = height, width, tile
        self._beyond = math.ceil(min(radius, height + width) ** 2)  # the least squared distance that is too far

    @property
    def cells(self) -> int:
        """Number of cells of a map."""
        return self.height * self.width

    def blocks(self) -> list[Area]:
        """Areas that cover the map, each of a few tiles one below the other."""
        rows, columns = self.tile[0] * TILES_AT_ONCE, self.tile[1]
        return [
            Area(top, min(self.height, top + rows), left, min(self.width, left + columns))
            for left in range(0, self.width, columns)
            for top in range(0, self.height, rows)
        ]

    def tiles(self, block: Area) -> list[Area]:
        """The tiles of a block from top to bottom."""
        tops = range(block.top, block.bottom, self.tile[0])
        return [block._replace(top=top, bottom=min(block.bottom, top + self.tile[0])) for top in tops]

    def window(self, tile: Area) -> list[Run]:
        """The cells that a tile can reach, column by column."""
        reach = self._reach(0)
        runs = []
        for x in range(max(0, tile.left - reach), min(self.width, tile.right + reach)):
            down = self._reach(max(tile.left - x, x - tile.right + 1, 0))
            runs.append(Run(x, max(0, tile.top - down), min(self.height, tile.bottom + down)))
        return runs

    def _reach(self, across: int) -> int:
        """The most rows by which a cell that can be reached is away, so many columns aside."""
        return math.isqrt(self._beyond - across**2 - 1)

    def cells_of(self, window: Sequence[Run]) -> Tensor:
        """Numbers of a window's cells, counted row by row over the map: int64 [n]."""
        return torch.tensor([y * self.width + x for x, top, bottom in window for y in range(top, bottom)])

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
        dtype: float32, or half precision where memory counts more than the last digit.
    """

    def __init__(self, tiling: Tiling, dtype: torch.dtype) -> None:
        self.tiling, self.dtype = tiling, dtype
        self._bank: Tensor | None = None  # [w, h, slots, D]

    def put(self, slot: int, features: Tensor, capacity: int) -> None:
        """Store a frame's features [h, w, D]; the room grows by doubling up to ``capacity`` slots."""
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
        """For each set of slots the k most similar cells that a query reaches.

        Args:
            block: where the queries come from.
            queries: float32 [rows * columns, D], all cells of the block.
            slot_sets: sets of slots, none of them empty.
            k: number of neighbours.
        """
        if not slot_sets:
            return []
        tiles = self.tiling.tiles(block)
        windows = [self.tiling.window(tile) for tile in tiles]
        scores = self._scores(windows, queries.split(self.tiling.tile[0] * (block.right - block.left)))
        found = [self._best(*tile, slot_sets, k) for tile in zip(tiles, windows, scores, strict=True)]
        return [Candidates(*map(torch.cat, zip(*parts, strict=True))) for parts in zip(*found, strict=True)]

    def _scores(self, windows: list[list[Run]], queries: Sequence[Tensor]) -> list[Tensor]:
        """Similarities of the cells of each tile's window to the tile's queries [q, D]: [n, slots, q]."""
        assert self._bank is not None
        slots, turned = self._bank.shape[2], [part.T.contiguous() for part in queries]
        sizes = [[(run.bottom - run.top) * slots for run in window] for window in windows]
        scores = [part.new_empty(sum(size), part.shape[1]) for part, size in zip(turned, sizes, strict=True)]
        places = [score.split(size) for score, size in zip(scores, sizes, strict=True)]
        for column in range(len(windows[0])):  # The same ones for all tiles, which lie one below the other.
            for window, part, place in zip(windows, turned, places, strict=True):
                x, top, bottom = window[column]
                torch.mm(self._bank[x, top:bottom].flatten(0, 1).float(), part, out=place[column])
        return [score.unflatten(0, (-1, slots)) for score in scores]

    def _best(
        self, tile: Area, window: list[Run], scores: Tensor, slot_sets: Sequence[tuple[int, ...]], k: int
    ) -> list[Candidates]:
        """The k best of a tile's scores [n, slots, q] for each set of slots."""
        cells = self.tiling.cells_of(window).to(scores.device)
        outside = self.tiling.outside(tile, cells)
        found = []
        for chosen in slot_sets:
            numbers = torch.tensor(chosen, device=scores.device)
            part = scores if len(chosen) == scores.shape[1] else scores[:, numbers]
            similarity, index = largest(part, k, outside)
            place = numbers[index % len(chosen)] * self.tiling.cells + cells[index // len(chosen)]
            found.append(Candidates(similarity, place))
        return found


class ReferenceFrame:
    """Features of one frame, every cell of which can be reached from everywhere.

    Args:
        features: [h, w, D].
        dtype: as for `ContextFrames`.
    """

    def __init__(self, features: Tensor, dtype: torch.dtype) -> None:
        flat = features.flatten(0, 1).to(dtype)
        self.cells = len(flat)
        self._groups = F.pad(flat, (0, 0, 0, -self.cells % GROUP))  # [n * GROUP, D]

    def nearest(self, queries: Tensor, slot: int, k: int) -> Candidates:
        """The k most similar cells for queries float32 [q, D]; the frame is said to be in ``slot``."""
        at_once = max(math.prod(CPU_TILE), SCORES_AT_ONCE // len(self._groups))
        found = [self._search(part, k) for part in queries.split(at_once)]
        similarity, cell = map(torch.cat, zip(*found, strict=True))
        # Where a map has fewer than k cells, cells behind its end fill up; they weigh nothing, but must exist.
        return Candidates(similarity, cell.clamp(max=self.cells - 1) + slot * self.cells)

    def _search(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        scores = self._groups.float() @ queries.T.contiguous()
        scores[self.cells :] = -torch.inf
        return largest(scores.unflatten(0, (-1, GROUP)), k)


def largest(scores: Tensor, k: int, outside: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The k largest of n * m values for each query.

    They lie in the k groups with the largest maxima, so that only k * m values need sorting.

    Args:
        scores: [n, m, q]: n groups of m values for each of q queries.
        k: how many.
        outside: bool [n, q], groups that do not count.

    Returns:
        Values and indices into n * m, both [q, k]; where there are fewer than k, -inf and index 0 fill up.
    """
    n, m, _ = scores.shape
    maxima = scores.amax(1)  # [n, q]
    if outside is not None:
        maxima.masked_fill_(outside, -torch.inf)
    top, groups = maxima.T.contiguous().topk(min(k, n))  # [q, k]
    wanted = groups.T[:, None].expand(-1, m, -1)  # [k, m, q]
    members = scores.gather(0, wanted).masked_fill_(top.T.isneginf()[:, None], -torch.inf)
    values, place = members.flatten(0, 1).T.contiguous().topk(min(k, members.shape[0] * m))
    index = groups.gather(1, place // m) * m + place % m
    missing = k - values.shape[1]
    return F.pad(values, (0, missing), value=-torch.inf), F.pad(index, (0, missing))


def merge(candidates: Sequence[Candidates], k: int) -> Candidates:
    """The k most similar of several lists; a list that is given twice counts twice."""
    similarity = torch.cat([found.similarity for found in candidates], 1)
    place = torch.cat([found.place for found in candidates], 1)
    similarity, best = similarity.topk(min(k, similarity.shape[1]))
    return Candidates(similarity, place.gather(1, best))
