"""A job: one method that runs over all sequences in a process of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from comparison.records import Given, Model, Row, SequenceRun
from vos_shared.datasets import VideoSequence
from vos_shared.results import ResultsTree


@dataclass(frozen=True)
class Job:
    """What a worker process needs to know; everything in it can be sent to one.

    Attributes:
        method: name of the method.
        entry: its entry point, ``module:attribute``.
        variant: name of its variant, and of the row.
        title: describes the method in a few words.
        paper: authors, venue, year.
        given: what it is told about the objects.
        weights: a file, a name, or None for the method's default.
        device: resolved, not ``auto``.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        seed: of the random numbers.
        masks: results folder of the row.
        log: what the method prints goes here.
        settings: whatever changes masks or speed; what was finished under other settings does not count.
        sequences: all that are to be segmented.
        inputs: fingerprint of each sequence.
    """

    method: str
    entry: str
    variant: str
    title: str
    paper: str
    given: Given
    weights: str | None
    device: str
    precision: str
    seed: int
    masks: Path
    log: Path
    settings: Mapping[str, str | int | list[str] | None]
    sequences: tuple[VideoSequence, ...]
    inputs: Mapping[str, str]

    def results(self) -> ResultsTree:
        """The row's results folder."""
        return ResultsTree(self.masks, settings=self.settings)

    def pending(self) -> list[VideoSequence]:
        """Sequences that are not finished under these settings and inputs."""
        results = self.results()
        return [sequence for sequence in self.sequences if not self._is_finished(results, sequence)]

    def _is_finished(self, results: ResultsTree, sequence: VideoSequence) -> bool:
        """Masks that somebody has changed are no longer the method's; the worker refuses to replace them."""
        complete = results.is_complete(sequence.name, sequence.frame_names, self.inputs[sequence.name])
        return complete and not results.is_edited(sequence.name) and _kept(results, sequence.name) is not None

    def row(self, failure: str | None = None) -> Row:
        """The row as its results folder tells it."""
        results = self.results()
        finished = [sequence.name for sequence in self.sequences if self._is_finished(results, sequence)]
        kept = {name: told for name in finished if (told := _kept(results, name)) is not None}
        models = [model for _, model in kept.values()]
        return Row(
            label=self.variant,
            title=self.title,
            paper=self.paper,
            given=self.given,
            masks=self.masks,
            model=models[-1] if models else None,
            runs={name: run for name, (run, _) in kept.items()},
            failure=failure,
        )


def _kept(results: ResultsTree, sequence: str) -> tuple[SequenceRun, Model] | None:
    """How a sequence went, as its record tells it; None where the record is damaged."""
    try:
        told = (results.record(sequence) or {})["extra"]
        run, model = SequenceRun(**told["run"]), Model(**told["model"])
    except (KeyError, TypeError):
        return None
    numbers = (run.frames, run.seconds, run.peak_memory_bytes or 0, model.parameters)
    if not all(isinstance(number, int | float) and 0 <= number < math.inf for number in numbers):
        return None
    return (run, model) if run.frames and isinstance(model.weights, str) and isinstance(model.trained, bool) else None
