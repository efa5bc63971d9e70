"""Mean, recall and decay of a measure over the frames of a sequence, as reported by DAVIS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

RECALL_THRESHOLD = 0.5
DECAY_BINS = 4


class Statistics(NamedTuple):
    """Statistics of a measure over a sequence.

    Attributes:
        mean: mean over the frames.
        recall: share of frames above 0.5.
        decay: mean of the first quarter minus mean of the last; positive if a method loses the object.
    """

    mean: float
    recall: float
    decay: float


def statistics_of(values: Sequence[float]) -> Statistics:
    """Mean, recall and decay of the values of consecutive frames.

    As in DAVIS, the quarters end at the frames nearest to four equal parts of 1..n (halves rounded up), and adjacent
    quarters share a frame.

    Raises:
        ValueError: there are no values.
    """
    scored = np.asarray(values, dtype=np.float64)
    if not len(scored):
        raise ValueError("no frame was scored")
    limits = np.round(np.linspace(1, len(scored), DECAY_BINS + 1) + 1e-10).astype(np.int64) - 1
    first, last = scored[: limits[1] + 1], scored[limits[-2] : limits[-1] + 1]
    return Statistics(
        mean=float(scored.mean()),
        recall=float((scored > RECALL_THRESHOLD).mean()),
        decay=float(first.mean() - last.mean()),
    )
