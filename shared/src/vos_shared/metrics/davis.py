"""The three protocols of DAVIS, one frame at a time.

Each evaluator takes the ids of the truth and of the prediction, uint8 [H, W], frame by frame, and keeps numbers only.
Id 255 is void in the truth and belongs to no object in a prediction.
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
from vos_shared.metrics.contour import BOUND_TH, tolerance
from vos_shared.metrics.packed import Outlined, contour, outline, region

MAX_PROPOSALS: Final = 20
"""Of a sequence in the unsupervised protocol (Caelles et al., 2019)."""


@dataclass(frozen=True)
class FrameScores:
    """J and F of one object, frame by frame; no F where the protocol has none."""

    region: list[float] = field(default_factory=list)
    contour: list[float] = field(default_factory=list)

    def add(self, region: float, contour: float) -> None:
        """Append one frame."""
        self.region.append(region)
        self.contour.append(contour)


class Evaluator(Protocol):
    """What the three protocols have in common."""

    def add(self, truth: ObjectMask, prediction: ObjectMask) -> None:
        """Score one frame; both masks are ids, uint8 [H, W]."""

    def result(self) -> Mapping[int | None, FrameScores]:
        """Scores of all frames so far by object id; None stands for the foreground as a whole."""


class Foreground:
    """DAVIS-2016: whatever has an id is the foreground; void pixels do not count."""

    def __init__(self, bound_th: float = BOUND_TH) -> None:
        self._bound_th = bound_th
        self._scores = FrameScores()

    def add(self, truth: ObjectMask, prediction: ObjectMask) -> None:
        """Score one frame."""
        distance, counted = tolerance(truth.shape, self._bound_th), _counted(truth)
        ours, theirs = (outline(mask, distance, counted) for mask in (truth, prediction))
        self._scores.add(region(ours, theirs), contour(ours, theirs))

    def result(self) -> dict[int | None, FrameScores]:
        """Scores of all frames so far, under None."""
        return {None: self._scores}


class SemiSupervised:
    """DAVIS-2017 with the first mask given: each object by its own id.

    An object without prediction is scored against an empty mask; predicted ids that the truth never holds are ignored.
    Void is background, as in the official tool (the semi-supervised annotations of DAVIS hold none). An object that
    enters later (in no DAVIS sequence) is scored in all frames, as in the official tool: 1 where neither has it yet.
    """

    def __init__(self, given: ObjectMask, bound_th: float = BOUND_TH) -> None:
        """Start with the truth of the first frame, which is given to the method and not scored."""
        self._bound_th = bound_th
        self._frames = 0
        self._objects = set(ids_of(given))
        self._scores: dict[int, FrameScores] = {}

    def add(self, truth: ObjectMask, prediction: ObjectMask) -> None:
        """Score one frame."""
        distance = tolerance(truth.shape, self._bound_th)
        self._objects.update(ids_of(truth))
        # Predicted ids are followed too: the truth may hold them later.
        for k in self._objects.union(ids_of(prediction), self._scores):
            ours, theirs = (outline(mask == k, distance) for mask in (truth, prediction))
            self._of(k).add(region(ours, theirs), contour(ours, theirs))
        self._frames += 1

    def _of(self, k: int) -> FrameScores:
        return self._scores.setdefault(k, FrameScores([1.0] * self._frames, [1.0] * self._frames))

    def result(self) -> dict[int | None, FrameScores]:
        """Scores by object id."""
        return {k: self._scores[k] for k in sorted(self._objects & self._scores.keys())}


class Unsupervised:
    """DAVIS-2017 without a mask given: proposals are assigned to objects so that mean J&F is highest.

    A proposal is an id that stays with its object over the sequence. Every object is scored in every frame, also where
    it is not to be seen.
    """

    def __init__(self, bound_th: float = BOUND_TH) -> None:
        self._bound_th = bound_th
        self._objects: set[int] = set()
        self._proposals: set[int] = set()
        self._tables: list[_PairScores] = []

    def add(self, truth: ObjectMask, prediction: ObjectMask) -> None:
        """Score one frame: every object against every proposal.

        Raises:
            BadResults: more than `MAX_PROPOSALS` different ids so far.
        """
        table = _PairScores.of(truth, prediction, tolerance(truth.shape, self._bound_th))
        self._objects.update(table.objects)
        self._proposals.update(table.proposals)
        if len(self._proposals) > MAX_PROPOSALS:
            raise BadResults(
                f"{len(self._proposals)} different ids so far; a sequence may have at most {MAX_PROPOSALS} proposals"
            )
        self._tables.append(table)

    def result(self) -> dict[int | None, FrameScores]:
        """Scores by object id, each of the proposal that was assigned to it."""
        objects = sorted(self._objects)
        if not objects:
            return {}
        # As in the official tool every id up to the highest is a proposal, though it may be empty, and there are
        # empty ones enough for all objects.
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
    """J and F of one frame, for each object with each proposal.

    Attributes:
        objects: ids in the truth.
        proposals: ids in the prediction.
        scores: float64 [2, objects + 1, proposals + 1], J and F; the last row and column are those of the empty mask.
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
        """Scores [2, objects, proposals] of any ids, those of the empty mask for what this frame does not hold."""
        rows = [self.objects.index(k) if k in self.objects else -1 for k in objects]
        columns = [self.proposals.index(k) if k in self.proposals else -1 for k in proposals]
        return self.scores[:, rows][:, :, columns]


def _outlines(mask: ObjectMask, ids: Iterable[int], distance: int, counted: Bits | None) -> list[Outlined]:
    """Outline of each id and, last, of the empty mask."""
    planes: list[npt.NDArray[Any]] = [mask == k for k in ids]
    return [outline(plane, distance, counted) for plane in (*planes, np.zeros(mask.shape, dtype=bool))]


def _counted(truth: ObjectMask) -> Bits | None:
    """Packed pixels that are not void; None if all count."""
    return pack(truth != VOID) if (truth == VOID).any() else None


def _assign(values: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    """Column of each row, all different, so that the sum of values is highest; values are not negative."""
    # Imported here because only this protocol needs it; scipy.optimize would take another 16 MiB.
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    # A sparse matrix takes 0 for no edge. Adding 1 changes every full assignment alike.
    rows, columns = min_weight_full_bipartite_matching(csr_array(values + 1), maximize=True)
    assigned = np.empty(len(values), dtype=np.intp)
    assigned[rows] = columns
    return assigned
