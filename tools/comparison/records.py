"""Records of each row of a comparison: origin, run, scores."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

Interval = tuple[float, float]


class Given(enum.Enum):
    """What a row was told about the objects; decides which tables it appears in."""

    FIRST_MASK = "first mask"
    NOTHING = "nothing"
    UNKNOWN = "computed elsewhere"


@dataclass(frozen=True)
class SequenceRun:
    """The run of one sequence, as stored in the results manifest.

    Attributes:
        frames: frames segmented.
        seconds: time in `Segmenter.prepare` and `Segmenter.step`; without reading frames and writing masks.
        peak_memory_bytes: high-water mark of the process (CPU) or of the device's allocator (CUDA).
    """

    frames: int
    seconds: float
    peak_memory_bytes: int | None


@dataclass(frozen=True)
class Model:
    """The model of a row; see `vos_shared.method.ModelInfo`."""

    parameters: int
    weights: str
    trained: bool


@dataclass(frozen=True)
class Measure:
    """J and F of an object, a sequence, or all of them.

    Attributes:
        values: "J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay"; nan where undefined.
        intervals: 95 % bootstrap intervals over sequences of some of the values; empty for a single sequence.
    """

    values: Mapping[str, float]
    intervals: Mapping[str, Interval] = field(default_factory=dict)


@dataclass(frozen=True)
class Scored:
    """A row under one protocol.

    Attributes:
        overall: the measure over all items.
        items: measure of each object ("blackswan_1", DAVIS-2017) or sequence (DAVIS-2016).
        sequence_of: sequence of each item.
        region_over_time: by sequence, number of each scored frame and its J, mean over the objects of the sequence.
    """

    overall: Measure
    items: Mapping[str, Measure]
    sequence_of: Mapping[str, str]
    region_over_time: Mapping[str, Sequence[tuple[int, float]]]


@dataclass(frozen=True)
class Row:
    """One method, variant, or folder of masks in the comparison.

    Attributes:
        label: its name in tables and as folder of masks.
        title: describes it in a few words.
        paper: authors, venue, year; empty if unknown.
        given: what the method was told about the objects.
        masks: results folder.
        model: weights and size; None if unknown.
        runs: finished sequences by name; empty for masks computed elsewhere.
        failure: one line with the reason; None if it ran.
        scored: by protocol name.
    """

    label: str
    title: str
    paper: str
    given: Given
    masks: Path
    model: Model | None = None
    runs: Mapping[str, SequenceRun] = field(default_factory=dict)
    failure: str | None = None
    scored: Mapping[str, Scored] = field(default_factory=dict)

    @property
    def ms_per_frame(self) -> float | None:
        """Milliseconds a frame over all finished sequences, preparation included; None if nothing was timed."""
        frames = sum(run.frames for run in self.runs.values())
        return 1000 * sum(run.seconds for run in self.runs.values()) / frames if frames else None

    @property
    def peak_memory_bytes(self) -> int | None:
        """Largest peak over the sequences; None if unknown."""
        return max((run.peak_memory_bytes for run in self.runs.values() if run.peak_memory_bytes), default=None)


@dataclass(frozen=True)
class Protocol:
    """How masks are scored.

    Attributes:
        name: key of `Row.scored` and dataset name for `vos_shared.evaluation`.
        title: heading of its table.
        explanation: what it means, in a sentence or two.
        takes: rows that it can score, by what they were told.
    """

    name: str
    title: str
    explanation: str
    takes: frozenset[Given]


OBJECTS = Protocol(
    "davis2017",
    "Each object, first mask given",
    "DAVIS-2017 semi-supervised: J and F of every object, mean over objects, first and last frame left out.",
    frozenset({Given.FIRST_MASK, Given.UNKNOWN}),
)
FOREGROUND = Protocol(
    "davis2016",
    "Foreground, all methods",
    "DAVIS-2016: the union of all objects is one foreground, so methods with and without a first mask can be"
    " compared; mean over sequences, first and last frame left out.",
    frozenset(Given),
)
