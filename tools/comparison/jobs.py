"""A job: one method that segments all sequences in a separate process."""

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
    """The input of a worker process; all of it can be pickled.

    Attributes:
        method: name of the method.
        entry: its entry point, ``module:attribute``.
        variant: name of its variant, and of the row.
        title: describes the method in a few words.
        paper: authors, venue, year.
        given: what the method is told about the objects.
        weights: a file, a name, or None for the method's default.
        device: resolved, not ``auto``.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        seed: seed of the random numbers.
        masks: results folder of the row.
        log: file for what the method prints.
        settings: everything that changes masks or speed; results of other settings are not reused.
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
        """Sequences without a finished result of these settings and inputs."""
        results = self.results()
        return [sequence for sequence in self.sequences if not self._is_finished(results, sequence)]

    def _is_finished(self, results: ResultsTree, sequence: VideoSequence) -> bool:
        """Masks that were changed by hand count as unfinished; the worker refuses to replace them."""
        complete = results.is_complete(sequence.name, sequence.frame_names, self.inputs[sequence.name])
        return complete and not results.is_edited(sequence.name) and _kept(results, sequence.name) is not None

    def row(self, failure: str | None = None) -> Row:
        """The row, read from its results folder."""
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
    """The run of a sequence, read from its record; None if the record is damaged."""
    try:
        told = (results.record(sequence) or {})["extra"]
        run, model = SequenceRun(**told["run"]), Model(**told["model"])
    except (KeyError, TypeError):
        return None
    numbers = (run.frames, run.seconds, run.peak_memory_bytes or 0, model.parameters)
    if not all(isinstance(number, int | float) and 0 <= number < math.inf for number in numbers):
        return None
    return (run, model) if run.frames and isinstance(model.weights, str) and isinstance(model.trained, bool) else None
