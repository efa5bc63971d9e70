"""Exact search for the cells of earlier frames that resemble the cells of a new frame most.

A dense search compares every cell of the new frame with every cell of every context frame and then hides what lies
outside the radius. Here tiles of queries meet only the window that the radius can reach: the map is cut into column
strips, stored so that the cells of neighbouring rows of a strip, of all context frames, lie side by side in memory.
A window then is a handful of matrix products without any copying, and its size does not grow with the map.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

TILE_QUERIES = {"cpu": 48, "cuda": 384}
"""What one matrix product compares at once: kernels for AVX-512 work on 48 columns; a GPU would rather compute too much
than start many small kernels."""
GROUP = 20  # cells of a reference frame that the search treats as one group
SCORES_AT_ONCE = 2**20  # similarities to a reference frame held at once: 4 MiB


class Candidates(NamedTuple):
    """The most similar cells of each of q queries, in no particular order."""

    similarity: Tensor
    """float32 [q, k]; -inf fills up where fewer than k cells can be reached."""
    place: Tensor
    """int64 [q, k]: slot * h * w + cell, cells counted row by row."""


@dataclass(frozen=True)
class Tile:
    """Queries of rows ``top`` to ``bottom`` of a strip and the window that they reach (half-open ranges)."""

    top: int
    bottom: int
    rows: tuple[int, int]
    strips: tuple[int, int]


class Tiling:
    """Cuts a feature map of h x w cells into strips and tiles.

    Args:
        height, width: h and w.
        radius: only cells that are strictly nearer than this (Euclidean, in cells) can be reached.
        queries: about so many make a tile.
    """

    def __init__(self, height: int, width: int, radius: float, queries: int = TILE_QUERIES["cpu"]) -> None:
        self.height, self.width, self.radius = height, width, radius
        self.reach = math.ceil(min(radius, height + width)) - 1
        # Half the reach: a window is hardly wider than it must be, and a tile's products are still large.
        columns = min(max(4, math.ceil(self.reach / 2)), 12, width)
        self.strips = math.ceil(width / columns)
        self.columns = math.ceil(width / self.strips)
        self.rows = max(1, queries // self.columns)

    @property
    def cells(self) -> int:
        """Number of cells of a map."""
        return self.height * self.width

    def strip(self, features: Tensor, number: int) -> Tensor:
        """One strip of features [h, w, D]: [h, b, D]; the last is filled up with zeros."""
        strip = features[:, number * self.columns : (number + 1) * self.columns]
        return F.pad(strip, (0, 0, 0, self.columns - strip.shape[1]))

    def restore(self, strips: Tensor) -> Tensor:
        """Put strips together again: [S, h, b, M] to [h, w, M]."""
        return strips.transpose(0, 1).flatten(1, 2)[:, : self.width]

    def tiles(self, strip: int) -> Iterator[Tile]:
        """The tiles of a strip from top to bottom."""
        across = math.ceil(self.reach / self.columns)
        strips = (max(0, strip - across), min(self.strips, strip + across + 1))
        for top in range(0, self.height, self.rows):
            bottom = min(self.height, top + self.rows)
            yield Tile(top, bottom, (max(0, top - self.reach), min(self.height, bottom + self.reach)), strips)

    def window(self, strip: int, tile: Tile, device: torch.device) -> tuple[Tensor, Tensor]:
        """What a tile sees.

        Returns:
            The cells of its window, int64 [n], in the order in which strips are stored, and bool [n, q]: the cells
            that lie outside the radius of each query.
        """
        y = torch.arange(*tile.rows, device=device)
        x = torch.arange(tile.strips[0] * self.columns, tile.strips[1] * self.columns, device=device)
        query_y = torch.arange(tile.top, tile.bottom, device=device)
        query_x = torch.arange(strip * self.columns, (strip + 1) * self.columns, device=device)
        across = (x[:, None] - query_x).square()  # [n b, b]
        across[x >= self.width] = (self.height + self.width) ** 2 + math.ceil(min(self.radius, 1e6)) ** 2  # filling
        down = (y[:, None] - query_y).square()  # [R, a]
        across = across.unflatten(0, (-1, self.columns))  # [n, b, b]
        distance = down[None, :, None, :, None] + across[:, None, :, None, :]  # [n, R, b, a, b]
        cells = y[None, :, None] * self.width + x.clamp(max=self.width - 1).view(-1, 1, self.columns)  # [n, R, b]
        return cells.flatten(), (distance >= self.radius**2).flatten(0, 2).flatten(1)


class ContextFrames:
    """Features of the latest frames, each in a numbered slot, searched within the radius.

    Args:
        tiling: how the map is cut.
        dtype: float32, or half precision where memory counts more than the last digit.
    """

    def __init__(self, tiling: Tiling, dtype: torch.dtype) -> None:
        self.tiling, self.dtype = tiling, dtype
        self._bank: Tensor | None = None  # [S, h, b, slots, D]

    def put(self, slot: int, features: Tensor, capacity: int) -> None:
        """Store a frame's features [h, w, D]; the room grows by doubling up to ``capacity`` slots."""
        held = 0 if self._bank is None else self._bank.shape[3]
        if slot >= held:
            tiling, size = self.tiling, min(capacity, max(slot + 1, 2 * held))
            shape = (tiling.strips, tiling.height, tiling.columns, size, features.shape[2])
            bank = features.new_zeros(shape, dtype=self.dtype)
            if self._bank is not None:
                bank[..., :held, :] = self._bank
            self._bank = bank
        assert self._bank is not None
        for number in range(self.tiling.strips):
            self._bank[number, :, :, slot] = self.tiling.strip(features, number)

    def nearest(self, strip: int, queries: Tensor, slot_sets: Sequence[tuple[int, ...]], k: int) -> list[Candidates]:
        """For each set of slots the k most similar cells that a query reaches.

        Args:
            strip: the number of the strip that the queries come from.
            queries: float32 [h * b, D], all cells of the strip.
            slot_sets: sets of slots, none of them empty.
            k: number of neighbours.
        """
        found = [
            self._search_tile(strip, tile, queries, slot_sets, k) if slot_sets else []
            for tile in self.tiling.tiles(strip)
        ]
        return [Candidates(*map(torch.cat, zip(*tiles, strict=True))) for tiles in zip(*found, strict=True)]

    def _search_tile(
        self, strip: int, tile: Tile, queries: Tensor, slot_sets: Sequence[tuple[int, ...]], k: int
    ) -> list[Candidates]:
        assert self._bank is not None
        slots = self._bank.shape[3]
        cells, outside = self.tiling.window(strip, tile, queries.device)
        columns = queries[tile.top * self.tiling.columns : tile.bottom * self.tiling.columns].T.contiguous()  # [D, q]
        window = self._bank[slice(*tile.strips), slice(*tile.rows)].flatten(1, 3).float()  # [n, R * b * slots, D]
        scores = torch.bmm(window, columns.expand(len(window), -1, -1))
        scores = scores.view(len(cells), slots, -1)  # [cells, slots, q]
        found = []
        for chosen in slot_sets:
            numbers = torch.tensor(chosen, device=queries.device)
            part = scores if len(chosen) == slots else scores[:, numbers]
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
        at_once = max(TILE_QUERIES["cpu"], SCORES_AT_ONCE // len(self._groups))
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
