"""IoU of classes over a set: mIoU of PASCAL VOC, and the set-wise IoU of the evaluator released with AMD.

Intersections and unions are summed over all images before division, unlike J, which is the mean IoU of the frames.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vos_shared.masks import VOID

FOREGROUND_ABOVE: Final = 0.5
"""In the AMD evaluator, soft masks above this value are foreground; 0.5 itself is background."""


class ConfusionMatrix:
    """Numbers of pixels by true and predicted class, summed over the images of a set.

    Attributes:
        counts: int64 [classes, classes + 1]; rows are true classes, columns predicted ones; the last column is void.
    """

    def __init__(self, classes: int) -> None:
        self.counts = np.zeros((classes, classes + 1), np.int64)

    def add(self, truth: npt.NDArray[Any], prediction: npt.NDArray[Any]) -> None:
        """Count an image; void (255) pixels of the truth are ignored, those of the prediction are errors.

        Args:
            truth: class ids, uint8 [H, W].
            prediction: class ids, uint8 [H, W].

        Raises:
            ValueError: the masks differ in size, or an id is not a class.
        """
        if truth.shape != prediction.shape:
            raise ValueError(f"truth is {truth.shape}, prediction {prediction.shape}")
        classes = len(self.counts)
        counted = truth != VOID
        rows, columns = truth[counted].astype(np.int64), prediction[counted].astype(np.int64)
        columns[columns == VOID] = classes
        if rows.size and (rows.max() >= classes or columns.max() > classes):
            raise ValueError(f"id {max(rows.max(), columns.max())} is not a class; there are {classes}")
        found = np.bincount(rows * (classes + 1) + columns, minlength=self.counts.size)
        self.counts += found.reshape(self.counts.shape)

    def iou(self) -> npt.NDArray[np.float64]:
        """IoU of each class, float64 [classes]; NaN for a class in neither truth nor prediction."""
        hits = np.diagonal(self.counts)
        union = self.counts.sum(axis=1) + self.counts[:, :-1].sum(axis=0) - hits
        return _ratio(hits, union)

    def accuracy(self) -> npt.NDArray[np.float64]:
        """Share of correct pixels of each class, float64 [classes]; NaN for a class that is not in the truth."""
        hits, pixels = np.diagonal(self.counts), self.counts.sum(axis=1)
        return _ratio(hits, pixels)

    def pixel_accuracy(self) -> float:
        """Share of correct pixels; NaN without pixels."""
        pixels = int(self.counts.sum())
        return float(np.trace(self.counts) / pixels) if pixels else float("nan")


def _ratio(part: npt.NDArray[np.int64], whole: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Quotients; NaN where the divisor is 0."""
    ratio = np.full(len(part), np.nan)
    np.divide(part, whole, out=ratio, where=whole > 0)
    return ratio


def mean_known(values: npt.NDArray[np.float64]) -> float:
    """Mean of the values that are not NaN; NaN if there are none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def resized_soft_mask(soft: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Resize a soft mask, float [h, w], to [H, W], bilinear with aligned corners."""
    soft = np.asarray(soft, np.float32)
    for axis, length in enumerate(size):
        if soft.shape[axis] != length:
            soft = _interpolated(soft, axis, length)
    return soft


def _interpolated(values: npt.NDArray[np.float32], axis: int, length: int) -> npt.NDArray[np.float32]:
    """Linear interpolation of an axis at `length` positions from its first to its last value."""
    last = values.shape[axis] - 1
    places = np.linspace(0, last, length) if length > 1 else np.zeros(1)
    low = np.minimum(places.astype(np.intp), max(last - 1, 0))
    share = (places - low).astype(np.float32).reshape((-1, 1) if axis == 0 else (1, -1))
    below, above = np.take(values, low, axis), np.take(values, np.minimum(low + 1, last), axis)
    return np.asarray(below + (above - below) * share, np.float32)
