"""Bootstrap intervals over sequences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

RESAMPLES = 10_000
COVERAGE = (2.5, 97.5)  # percentile interval of 95 %


def bootstrap_interval(
    values: Mapping[str, Sequence[float]], *, seed: int, resamples: int = RESAMPLES
) -> tuple[float, float] | None:
    """95 % percentile bootstrap interval of a mean over items that are grouped in sequences.

    Sequences are drawn with replacement, each with all its objects: objects of one video are not independent samples.

    Args:
        values: the items' values by sequence; nan is left out.
        seed: of the draws, so that the same scores give the same interval.
        resamples: number of draws.

    Returns:
        Lower and upper end; None with fewer than two sequences.
    """
    groups = [finite for group in values.values() if (finite := [value for value in group if np.isfinite(value)])]
    if len(groups) < 2:
        return None
    sums = np.array([sum(group) for group in groups])  # [S]
    counts = np.array([len(group) for group in groups])  # [S]
    draws = _draws(len(groups), seed, resamples)  # [R, S]
    means = sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
    low, high = np.percentile(means, COVERAGE)
    return float(low), float(high)


def _draws(sequences: int, seed: int, resamples: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng(seed).integers(sequences, size=(resamples, sequences))
