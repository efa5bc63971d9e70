"""Scores of a row under a protocol, with intervals."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from comparison.records import Interval, Measure, Protocol, Scored
from comparison.statistics import bootstrap_interval
from vos_shared import datasets
from vos_shared.evaluation import OBJECTS, evaluate, without_a_true_id
from vos_shared.metrics.scores import Item

WITH_INTERVAL = ("J&F-Mean", "J-Mean", "F-Mean")


def score(
    protocol: Protocol, sequences: Sequence[datasets.VideoSequence], masks: Path, *, workers: int, seed: int
) -> Scored:
    """Score a results folder.

    Raises:
        UserError: masks that are missing, cannot be read, or are of another size.
    """
    scores = evaluate(protocol.name, sequences, masks, workers=workers, progress=False)
    if protocol.name == OBJECTS:
        for line in without_a_true_id(scores, sequences, masks):
            tqdm.write(f"note: {masks.name}: {line}", file=sys.stderr)
    items = scores.items.values()
    return Scored(
        Measure(scores.summary, _intervals(items, seed)),
        {name: Measure(item.measures) for name, item in scores.items.items()},
        {name: item.sequence for name, item in scores.items.items()},
        {sequence.name: _over_time(sequence, items) for sequence in sequences},
    )


def _intervals(items: Iterable[Item], seed: int) -> dict[str, Interval]:
    intervals = {}
    for name in WITH_INTERVAL:
        grouped: dict[str, list[float]] = {}
        for item in items:
            grouped.setdefault(item.sequence, []).append(item.measures[name])
        interval = bootstrap_interval(grouped, seed=seed)
        if interval is not None:
            intervals[name] = interval
    return intervals


def _over_time(sequence: datasets.VideoSequence, items: Iterable[Item]) -> list[tuple[int, float]]:
    """Number of each scored frame of a sequence and the mean J of the objects that are scored there."""
    number = {name: i for i, name in enumerate(sequence.frame_names)}
    own = [item for item in items if item.sequence == sequence.name]
    region = np.array([item.frames.region for item in own])  # [K, T], nan before an object enters
    means = [float(np.mean(values)) if (values := column[~np.isnan(column)]).size else math.nan for column in region.T]
    return [(number[name], mean) for name, mean in zip(own[0].frame_names, means, strict=True) if not math.isnan(mean)]
