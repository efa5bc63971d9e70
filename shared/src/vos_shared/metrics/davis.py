"""The three protocols of DAVIS, one frame at a time.

Each evaluator takes the true and the predicted ids of a frame, uint8 [H, W], and keeps only scores. Id 255 is void in
the truth and belongs to no object in a prediction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from vos_shared.errors import BadResults
from vos_shared.masks import VOID, ids_of
from vos_shared.method import ObjectMask
from vos_shared.metrics.bits import Bits, pack
from vos_shared.metrics.contour import tolerance
from vos_shared.metrics.packed import Outlined, contour, outline, region

MAX_PROPOSALS: Final = 20
"""Largest number of proposals for a sequence in the unsupervised protocol (Caelles et al., 2019)."""


@dataclass(frozen=True)
class FrameScores:
    """J and F of an object in each frame; F is empty if the protocol has none."""

    region: list[float] = field(default_factory=list)
    contour: list[float] = field(default_factory=list)

    def add(self, region: float, contour: float) -> None:
        """Append the scores of a frame."""
        self.region.append(region)
        self.contour.append(contour)


class Evaluator(Protocol):
    """Interface of the protocols."""

    def add(self, truth: ObjectMask, prediction: ObjectMask) -> None:
        """Score a frame; both masks are ids, uint8 [H, W]."""

    def result(self) -> Mapping[int | None, FrameScores]:
        """Scores of all frames so far by object id; None is the foreground as a whole."""


class Foreground:
    """DAVIS-2016: all ids together are the foreground; void pixels are ignored."""

    def __init__(self) -> None:
        self._scores = FrameScores()

    def add(self, truth: ObjectMask, prediction: ObjectMask) -> None:
        """Score one frame."""
        distance, counted = tolerance(truth.shape), _counted(truth)
        ours, theirs = (outline(mask, distance, counted) for mask in (truth, prediction))
        self._scores.add(region(ours, theirs), contour(ours, theirs))

    def result(self) -> dict[int | None, FrameScores]:
        """Scores of all frames so far, under None."""
        return {None: self._scores}


class SemiSupervised:
    """DAVIS-2017 semi-supervised: each object is scored by its id.

    An object without prediction is scored against an empty mask; predicted ids that are never in the truth are ignored.
    As in the official tool, void is background (the semi-supervised annotations of DAVIS have no void), and an object
    that enters later (in no sequence of DAVIS) is scored in all frames: 1 as long as neither truth nor prediction
    contains it.

    Args:
        given: the true mask of the first frame, which is the prompt and is not scored.
    """

    def __init__(self, given: ObjectMask) -> None:
        self._frames = 0
        self._objects = set(ids_of(given))
        self._scores: dict[int, FrameScores] = {}

    def add(self, truth: ObjectMask, prediction: ObjectMask) -> None:
        """Score one frame."""
        distance = tolerance(truth.shape)
        self._objects.update(ids_of(truth))
        # Predicted ids are scored too, since the truth may contain them later.
        for k in self._objects.union(ids_of(prediction), self._scores):
            ours, theirs = (outline(mask == k, distance) for mask in (truth, prediction))
            scores = self._scores.setdefault(k, FrameScores([1.0] * self._frames, [1.0] * self._frames))
            scores.add(region(ours, theirs), contour(ours, theirs))
        self._frames += 1

    def result(self) -> dict[int | None, FrameScores]:
        """Scores by object id."""
        return {k: self._scores[k] for k in sorted(self._objects & self._scores.keys())}


class Unsupervised:
    """DAVIS-2017 unsupervised: proposals are assigned to objects such that the mean J&F is highest.

    A proposal is a predicted id; its assignment holds for the whole sequence. Every object is scored in every frame,
    visible or not.
    """

    def __init__(self) -> None:
        self._objects: set[int] = set()
        self._proposals: set[int] = set()
        self._tables: list[_PairScores] = []

    def add(self, truth: ObjectMask, prediction: ObjectMask) -> None:
        """Score every object against every proposal in a frame.

        Raises:
            BadResults: more than `MAX_PROPOSALS` different ids so far.
        """
        table = _PairScores.of(truth, prediction, tolerance(truth.shape))
        self._objects.update(table.objects)
        self._proposals.update(table.proposals)
        if len(self._proposals) > MAX_PROPOSALS:
            raise BadResults(
                f"{len(self._proposals)} different ids so far; a sequence may have at most {MAX_PROPOSALS} proposals"
            )
        self._tables.append(table)

    def result(self) -> dict[int | None, FrameScores]:
        """Scores by object id, each of the proposal assigned to the object."""
        objects = sorted(self._objects)
        if not objects:
            return {}
        # As in the official tool, every id up to the highest is a proposal (possibly empty), and empty proposals are
        # added until there is one for each object.
        count = max(max(self._proposals, default=0), len(objects))
        proposals = list(range(1, count + 1))
        scores = np.stack([table.select(objects, proposals) for table in self._tables])  # [T, 2, objects, proposals]
        assigned = _assign(scores.mean(axis=(0, 1)))
        return {
            k: FrameScores(scores[:, 0, row, assigned[row]].tolist(), scores[:, 1, row, assigned[row]].tolist())
            for row, k in enumerate(objects)
        }


@dataclass(frozen=True)
class _PairScores:
    """J and F of each object with each proposal in a frame.

    Attributes:
        objects: ids in the truth.
        proposals: ids in the prediction.
        scores: float64 [2, objects + 1, proposals + 1], J and F; the last row and column belong to the empty mask.
    """

    objects: list[int]
    proposals: list[int]
    scores: npt.NDArray[np.float64]

    @classmethod
    def of(cls, truth: ObjectMask, prediction: ObjectMask, distance: int) -> _PairScores:
        counted = _counted(truth)
        objects, proposals = ids_of(truth), ids_of(prediction)
        rows = _outlines(truth, objects, distance, counted)
        columns = _outlines(prediction, proposals, distance, counted)
        scores = [[[measure(row, column) for column in columns] for row in rows] for measure in (region, contour)]
        return cls(objects, proposals, np.array(scores))

    def select(self, objects: list[int], proposals: list[int]) -> npt.NDArray[np.float64]:
        """Scores [2, objects, proposals] of these ids; an id that is not in the frame scores as the empty mask."""
        rows = [self.objects.index(k) if k in self.objects else -1 for k in objects]
        columns = [self.proposals.index(k) if k in self.proposals else -1 for k in proposals]
        return self.scores[:, rows][:, :, columns]


def _outlines(mask: ObjectMask, ids: Iterable[int], distance: int, counted: Bits | None) -> list[Outlined]:
    """Outlines of the ids and, last, of the empty mask."""
    planes: list[npt.NDArray[Any]] = [mask == k for k in ids]
    return [outline(plane, distance, counted) for plane in (*planes, np.zeros(mask.shape, dtype=bool))]


def _counted(truth: ObjectMask) -> Bits | None:
    """Packed mask of the pixels that are not void; None if there are no void pixels."""
    return pack(truth != VOID) if (truth == VOID).any() else None


def _assign(values: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    """Assign a different column to each row such that the sum of values (none negative) is highest."""
    # Imported here since only this protocol needs it; scipy.optimize would take another 16 MiB.
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    # In a sparse matrix 0 means no edge. Adding 1 changes the sums of all full assignments equally.
    rows, columns = min_weight_full_bipartite_matching(csr_array(values + 1), maximize=True)
    assigned = np.empty(len(values), dtype=np.intp)
    assigned[rows] = columns
    return assigned
