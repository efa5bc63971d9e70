"""Measures of salient object detection, between the soft mask and the true mask of an image.

MAE, F-measure (Achanta et al., CVPR 2009), S-measure (Fan et al., ICCV 2017), E-measure (Fan et al., IJCAI 2018) and
weighted F-measure (Margolin et al., CVPR 2014). `saliency_of` computes them for an image; `Saliency` averages them over
a data set. Each soft mask is first scaled to 0..1 by its minimum and maximum.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import exp
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
SoftMask = npt.NDArray[np.float32]
Curve = npt.NDArray[np.float64]

BETA2: Final = 0.3
"""Weight beta² of precision in F (Achanta et al., section 4); 1 in the weighted F."""
LEVELS: Final = 256
"""Number of thresholds t: a pixel is predicted as object if floor(255 * value) >= t."""

SALIENCY_MEASURES: Final = ("MAE", "maxF", "meanF", "adaptiveF", "S", "maxE", "meanE", "adaptiveE", "weightedF")
"""The reported measures. Lower is better for MAE, higher for all others."""

_EPSILON: Final = float(np.spacing(1.0))
_ROUNDING: Final = 1e-4
"""Added to levels, since k / 255 * 255 in float32 may be slightly below k."""
_TIES: Final = 1 - 1e-6
"""Times the adaptive threshold, so that rounding does not decide whether a value that equals it is predicted."""
_RADIUS: Final = 3
_REACH: Final = 4
"""Farthest column or row of an object pixel that is nearest to a pixel within the Gaussian's reach."""
_STRIP: Final = 64
"""Rows that are smoothed at once, so that they stay in the processor's cache."""
_SIGMA: Final = 5.0
"""Gaussian of the weighted F: 7 x 7 pixels with this standard deviation (Margolin et al.)."""
_HALVED_AT: Final = 5.0
"""Distance in pixels at which the extra weight of an error, 1 - exp(ln 0.5 / 5 · d), is half its maximum."""
_FAR: Final = 120
"""Distance in pixels from which on the weight is 2 in float32: 2 - 2^-24."""


def _steps() -> dict[int, list[tuple[int, int]]]:
    """Steps down and to the right by squared length, up to the Gaussian's corners; the last one that fits counts."""
    sides = range(-_REACH, _REACH + 1)
    steps: dict[int, list[tuple[int, int]]] = {}
    for right, down in product(reversed(sides), reversed(sides)):
        if 0 < right**2 + down**2 <= 2 * _RADIUS**2:
            steps.setdefault(right**2 + down**2, []).append((down, right))
    return steps


_STEPS: Final = _steps()


@dataclass(frozen=True)
class ImageSaliency:
    """The measures of an image, each in 0..1.

    Attributes:
        mae: mean absolute error.
        f: F-measure at each of the thresholds 0..255, float64 [256].
        adaptive_f: F-measure at the adaptive threshold: twice the mean of the soft mask, at most 1.
        s: S-measure.
        e: E-measure at each threshold, float64 [256].
        adaptive_e: E-measure at the adaptive threshold.
        weighted_f: weighted F-measure.
    """

    mae: float
    f: Curve
    adaptive_f: float
    s: float
    e: Curve
    adaptive_e: float
    weighted_f: float

    @property
    def measures(self) -> dict[str, float]:
        """`SALIENCY_MEASURES` of the image; ``max`` is taken over its thresholds."""
        means = np.array([self.mae, self.adaptive_f, self.s, self.adaptive_e, self.weighted_f])
        return _named(means, self.f, self.e)


class Saliency:
    """Means over the images of a data set.

    Curves are averaged before their maximum is taken: ``maxF`` and ``maxE`` use one threshold for the whole data set.
    """

    def __init__(self) -> None:
        self._images = 0
        self._values = np.zeros(5)
        self._curves = np.zeros((2, LEVELS))

    def add(self, image: ImageSaliency) -> None:
        """Add an image."""
        self._images += 1
        self._values += (image.mae, image.adaptive_f, image.s, image.adaptive_e, image.weighted_f)
        self._curves += (image.f, image.e)

    def result(self) -> dict[str, float]:
        """`SALIENCY_MEASURES` over all images so far; ValueError if there are none."""
        if not self._images:
            raise ValueError("no image was scored")
        f, e = self._curves / self._images
        return _named(self._values / self._images, f, e)


def _named(values: npt.NDArray[np.float64], f: Curve, e: Curve) -> dict[str, float]:
    mae, adaptive_f, s, adaptive_e, weighted_f = values.tolist()
    f_measures = float(f.max()), float(f.mean()), adaptive_f
    e_measures = float(e.max()), float(e.mean()), adaptive_e
    return dict(zip(SALIENCY_MEASURES, (mae, *f_measures, s, *e_measures, weighted_f), strict=True))


def saliency_of(truth: npt.NDArray[Any], prediction: npt.NDArray[Any]) -> ImageSaliency:
    """Compute all measures of an image.

    If the truth is empty, F and weighted F are 0, and S and E are higher the lower the prediction is.

    Args:
        truth: [H, W]; nonzero is the object.
        prediction: soft mask [H, W], uint8 or float of any range; it is scaled to 0..1 by its minimum and maximum. A
            constant prediction is not scaled: uint8 is divided by 255, float is clipped to 0..1.

    Raises:
        ValueError: not [H, W] of one size, or the prediction contains NaN or infinity.
    """
    if truth.shape != prediction.shape or truth.ndim != 2 or not truth.size:
        raise ValueError(f"truth and prediction must be [H, W] of one size, not {truth.shape} and {prediction.shape}")
    mask, soft = truth.astype(bool), _scaled(prediction)
    cells, adaptive = _Cells.at_levels(mask, soft), _Cells.adaptive(mask, soft)
    return ImageSaliency(
        mae=float(np.where(mask, 1 - soft, soft).mean(dtype=np.float64)),
        f=cells.f_measure(),
        adaptive_f=float(adaptive.f_measure()[0]),
        s=_s_measure(mask, soft),
        e=cells.e_measure(),
        adaptive_e=float(adaptive.e_measure()[0]),
        weighted_f=_weighted_f(mask, soft),
    )


def _scaled(prediction: npt.NDArray[Any]) -> SoftMask:
    """The prediction, scaled to 0..1."""
    low, high = float(prediction.min()), float(prediction.max())
    if not np.isfinite(high - low):
        raise ValueError("the prediction holds NaN, infinity or values too large to scale")
    if low == high:
        return np.full(prediction.shape, min(max(low / (255 if prediction.dtype == np.uint8 else 1), 0), 1), np.float32)
    wide = prediction if prediction.dtype == np.float64 else prediction.astype(np.float32)
    scaled = (wide - wide.dtype.type(low)) / wide.dtype.type(high - low)
    return scaled.astype(np.float32, copy=False)


@dataclass(frozen=True)
class _Cells:
    """Entries of the confusion matrix at some thresholds.

    Attributes:
        hits: number of true positives, float64 [thresholds].
        predicted: number of predicted pixels, float64 [thresholds].
        object_pixels: number of object pixels of the truth.
        pixels: number of pixels of the image.
    """

    hits: Curve
    predicted: Curve
    object_pixels: int
    pixels: int

    @classmethod
    def at_levels(cls, truth: Mask, soft: SoftMask) -> _Cells:
        """At `LEVELS` thresholds, from the histograms of the object and of the background."""
        keys = (soft * 255 + _ROUNDING).astype(np.int16)
        keys += np.multiply(truth, LEVELS, dtype=np.int16)
        rest, hits = np.bincount(keys.ravel(), minlength=2 * LEVELS).reshape(2, LEVELS)
        at_least = np.cumsum(np.stack([hits, rest + hits])[:, ::-1], axis=1)[:, ::-1].astype(np.float64)
        return cls(at_least[0], at_least[1], int(hits.sum()), truth.size)

    @classmethod
    def adaptive(cls, truth: Mask, soft: SoftMask) -> _Cells:
        """At the adaptive threshold: twice the mean, at most 1."""
        predicted = soft >= min(2 * float(soft.mean(dtype=np.float64)), 1.0) * _TIES
        hits, count = np.count_nonzero(predicted & truth), np.count_nonzero(predicted)
        return cls(np.array([hits], float), np.array([count], float), int(np.count_nonzero(truth)), truth.size)

    def f_measure(self) -> Curve:
        """F with `BETA2`; 0 without true positives."""
        precision = self.hits / np.maximum(self.predicted, 1)
        recall = self.hits / max(self.object_pixels, 1)
        both = BETA2 * precision + recall
        return np.divide((1 + BETA2) * precision * recall, both, out=np.zeros_like(both), where=both > 0)

    def e_measure(self) -> Curve:
        """Enhanced alignment, summed over the pixels and divided by their number minus one.

        All pixels of a cell of the confusion matrix have the same alignment. If the truth is all background or all
        object, the sum is the number of pixels that agree with it.
        """
        pixels, others = self.pixels, max(self.pixels - 1, 1)
        if self.object_pixels in (0, pixels):
            return (self.predicted if self.object_pixels else pixels - self.predicted) / others
        false = self.predicted - self.hits
        missed = self.object_pixels - self.hits
        counts = ((self.hits, missed), (false, pixels - self.predicted - missed))
        summed = np.zeros_like(self.hits)
        for in_truth, row in ((1, counts[0]), (0, counts[1])):
            for in_prediction, count in ((1, row[0]), (0, row[1])):
                ours, theirs = in_truth - self.object_pixels / pixels, in_prediction - self.predicted / pixels
                aligned = 2 * ours * theirs / (ours**2 + theirs**2 + _EPSILON)
                summed += count * (aligned + 1) ** 2 / 4
        return summed / others


def _s_measure(truth: Mask, soft: SoftMask) -> float:
    """S-measure: mean of the object-aware and the region-aware similarity."""
    share = float(truth.mean())
    if share in (0.0, 1.0):
        mean = float(soft.mean(dtype=np.float64))
        return mean if share else 1 - mean
    objects = share * _evenness(soft[truth]) + (1 - share) * _evenness(1 - soft[~truth])
    return max((objects + _regions(truth, soft)) / 2, 0.0)


def _evenness(values: SoftMask) -> float:
    """Object-aware similarity: 1 if all values are 1; from their mean and standard deviation."""
    mean = float(values.mean())
    squares = float(((values - values.dtype.type(mean)) ** 2).sum())
    deviation = float(np.sqrt(squares / max(len(values) - 1, 1)))
    return 2 * mean / (mean**2 + 1 + deviation + _EPSILON)


def _regions(truth: Mask, soft: SoftMask) -> float:
    """Region-aware similarity: SSIM of the four quadrants around the centroid, weighted by their pixels."""
    row, column = _centre(truth)
    parts = [np.s_[rows, columns] for rows in _halves(row) for columns in _halves(column)]
    return sum(
        (truth[part].size / truth.size * _ssim(truth[part], soft[part]) for part in parts if truth[part].size), 0.0
    )


def _halves(at: int) -> tuple[slice, slice]:
    return slice(None, at), slice(at, None)


def _centre(truth: Mask) -> tuple[int, int]:
    """Row and column at which the image is split: the object's centroid, rounded (halves up), plus 1."""
    counts = (truth.sum(axis=1, dtype=np.int64), truth.sum(axis=0, dtype=np.int64))
    row, column = (int(np.arange(len(n)) @ n / n.sum() + 0.5) + 1 for n in counts)
    return row, column


def _ssim(truth: Mask, soft: SoftMask) -> float:
    """SSIM without constants; for a constant truth 1 if the soft mask is constant as well, else 0."""
    pixels, area = truth.size, int(np.count_nonzero(truth))
    if area in (0, pixels):
        return float(soft.min() == soft.max())
    mean_p, mean_g, others = _sum(soft) / pixels, area / pixels, pixels - 1
    covariance = (_sum(soft * truth) - area * mean_p) / others
    variances = (max(_sum(soft * soft) - pixels * mean_p**2, 0.0) + area * (1 - mean_g)) / others
    return 4 * mean_p * mean_g * covariance / ((mean_p**2 + mean_g**2) * variances + _EPSILON)


def _sum(values: SoftMask) -> float:
    """Sum of [H, W]; rows are summed in float32, their sums in float64."""
    return float(values.sum(axis=1).sum(dtype=np.float64))


def _weighted_f(truth: Mask, soft: SoftMask) -> float:
    """Weighted F: errors are smoothed over object pixels, and weigh more with their distance from the object."""
    count = int(np.count_nonzero(truth))
    if not count:
        return 0.0
    near = _around(truth, _FAR)
    distance2 = _squared_distances(truth[near])
    false = _false(np.where(truth, np.float32(0), soft), near, distance2)
    missed = _missed(truth[near], soft[near], distance2)
    recall, precision = 1 - missed / count, (count - missed) / (count - missed + false + _EPSILON)
    return 2 * recall * precision / (recall + precision + _EPSILON)


Box = tuple[slice, slice]


def _around(truth: Mask, margin: int) -> Box:
    """The object's bounding box, enlarged by a margin within the image."""
    rows, columns = (np.flatnonzero(truth.any(axis=axis)) for axis in (1, 0))
    return (
        slice(max(int(rows[0]) - margin, 0), int(rows[-1]) + margin + 1),
        slice(max(int(columns[0]) - margin, 0), int(columns[-1]) + margin + 1),
    )


def _squared_distances(truth: Mask) -> SoftMask:
    """Squared distance of each pixel to the nearest object pixel, exact, float32 [H, W]."""
    from edt import edtsq

    squared: SoftMask = edtsq(np.logical_not(truth, order="C"))
    return squared


def _false(outside: SoftMask, near: Box, distance2: SoftMask) -> float:
    """Weighted sum of the prediction outside the object.

    Args:
        outside: soft mask [H, W] with 0 on the object.
        near: box of the image outside which all weights are 2.
        distance2: squared distance to the object in that box.
    """
    decay = np.sqrt(distance2)
    decay *= np.float32(-1 / _HALVED_AT)
    np.exp2(decay, out=decay)
    decay *= outside[near]
    return 2 * _sum(outside) - _sum(decay)


def _missed(truth: Mask, soft: SoftMask, distance2: SoftMask) -> float:
    """Sum over the object of the error or the smoothed error, whichever is less.

    For smoothing, a pixel outside the object has the error of its nearest object pixel, and 0 outside the image.
    """
    error = 1 - soft
    errors = np.pad(error, _REACH)
    _copy_from_nearest(errors, np.pad(truth, _REACH), distance2)
    rows, columns = _around(truth, 0)
    margin = np.s_[columns.start + _REACH - _RADIUS : columns.stop + _REACH + _RADIUS]
    missed = 0.0
    for start in range(rows.start, rows.stop, _STRIP):
        stop = min(start + _STRIP, rows.stop)
        own = np.s_[start:stop, columns]
        reached = errors[start + _REACH - _RADIUS : stop + _REACH + _RADIUS, margin]
        smooth = _smoothed(_smoothed(reached, 0), 1)
        np.minimum(smooth, error[own], out=smooth)
        smooth *= truth[own]
        missed += _sum(smooth)
    return missed


def _copy_from_nearest(errors: SoftMask, truth: Mask, distance2: SoftMask) -> None:
    """Give pixels within the Gaussian's reach of the object the error of their nearest object pixel, in place.

    Of several nearest ones, the leftmost counts, and of these the uppermost.

    Args:
        errors: [H + 2 r, W + 2 r] with r = `_REACH`.
        truth: of the same shape; no object in the margin.
        distance2: squared distance to the object, [H, W].
    """
    rows, columns = np.nonzero((distance2 > 0) & (distance2 <= 2 * _RADIUS**2))
    places = (rows + _REACH) * errors.shape[1] + columns + _REACH
    squares = distance2[rows, columns].astype(np.uint8)
    order = np.argsort(squares, kind="stable")
    ends = np.cumsum(np.bincount(squares, minlength=2 * _RADIUS**2 + 1))
    for square, steps in _STEPS.items():
        own = places[order[ends[square - 1] : ends[square]]]
        nearest = own.copy()
        for down, right in steps:
            there = own + (down * errors.shape[1] + right)
            np.copyto(nearest, there, where=truth.ravel()[there])
        errors.ravel()[own] = errors.ravel()[nearest]


def _smoothed(values: SoftMask, axis: Literal[0, 1]) -> SoftMask:
    """Gaussian smoothing along an axis, which becomes shorter by `_RADIUS` at both ends."""
    weights = [exp(-(step**2) / (2 * _SIGMA**2)) for step in range(_RADIUS + 1)]
    scale = 1 / (2 * sum(weights) - weights[0])
    length = values.shape[axis] - 2 * _RADIUS

    def shifted(step: int) -> SoftMask:
        part = slice(_RADIUS + step, _RADIUS + step + length)
        return values[part] if axis == 0 else values[:, part]

    smooth = shifted(0) * (weights[0] * scale)
    pair = np.empty_like(smooth)
    for step in range(1, _RADIUS + 1):
        np.add(shifted(-step), shifted(step), out=pair)
        pair *= weights[step] * scale
        smooth += pair
    return smooth
