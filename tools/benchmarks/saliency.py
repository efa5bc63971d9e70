"""All measures of salient object detection of one image, beside plain implementations of their definitions."""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import convolve, distance_transform_edt, gaussian_filter

from benchmarks._measure import Clock, Row
from vos_shared.metrics.saliency import saliency_of

Mask = npt.NDArray[np.bool_]
Soft = npt.NDArray[np.float64]


def plain_curve(truth: Mask, soft: Soft) -> list[float]:
    """F at 256 thresholds, each counted separately."""
    levels, values = np.floor(255 * soft + 1e-4), []
    for level in range(256):
        predicted = levels >= level
        hits = np.count_nonzero(predicted & truth)
        precision, recall = hits / (np.count_nonzero(predicted) or 1), hits / truth.sum()
        values.append(1.3 * precision * recall / (0.3 * precision + recall) if hits else 0.0)
    return values


def plain_weighted_f(truth: Mask, soft: Soft) -> float:
    """Weighted F with a 7 x 7 convolution and distances of the whole image."""
    distance, (rows, columns) = distance_transform_edt(~truth, return_indices=True)
    error = np.abs(soft - truth)
    y, x = np.mgrid[-3:4, -3:4]
    gauss = np.exp(-(x * x + y * y) / 50)
    smooth = convolve(np.where(truth, error, error[rows, columns]), gauss / gauss.sum(), mode="constant")
    weighted = np.where(truth & (smooth < error), smooth, error)
    weighted *= np.where(truth, 1, 2 - np.exp(np.log(0.5) / 5 * distance))
    hits, false = truth.sum() - weighted[truth].sum(), weighted[~truth].sum()
    recall, precision = hits / truth.sum(), hits / (hits + false)
    return float(2 * recall * precision / (recall + precision))


def plain_measures(truth: Mask, soft: Soft) -> tuple[list[float], float]:
    """F and weighted F."""
    return plain_curve(truth, soft), plain_weighted_f(truth, soft)


def run(height: int = 480, width: int = 854, repeats: int = 15, plain_repeats: int = 2) -> list[Row]:
    """Measure objects of several sizes; the fastest of some calls counts, as others may use the machine.

    Args:
        height: of the image.
        width: of the image.
        repeats: calls of ours.
        plain_repeats: calls of the plain F curve and weighted F, without the other measures.
    """
    rows: list[Row] = []
    for share in (0.02, 0.2, 0.8):
        truth, prediction = _image(height, width, share)
        ours, plain = Clock(torch.device("cpu")), Clock(torch.device("cpu"))
        for _ in range(repeats):
            found = ours.time(partial(saliency_of, truth, prediction))
        soft = (prediction - prediction.min()).astype(np.float64) / np.ptp(prediction)
        for _ in range(plain_repeats):
            expected = plain.time(partial(plain_measures, truth, soft))
        difference = max(np.abs(found.f - expected[0]).max(), abs(found.weighted_f - expected[1]))
        rows.append({**ours.row(f"all measures, object {share:.0%}"), "differs by": float(difference)})
        rows.append(plain.row("  plain F and weighted F"))
    return rows


def _image(height: int, width: int, share: float) -> tuple[Mask, npt.NDArray[np.float32]]:
    """An ellipse that covers about this share, and a noisy soft mask of it."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    truth = x * x + y * y < 4 * share / np.pi
    noise = np.random.default_rng(0).normal(0, 0.5, truth.shape)
    return truth, gaussian_filter(truth + noise, 2).astype(np.float32)
