"""J and F of packed masks; what depends on one mask is computed once for all masks that it is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from vos_shared.metrics.bits import Bits, boundary, count, dilate, pack


@dataclass(frozen=True)
class Outlined:
    """A packed mask with its boundary.

    Attributes:
        bits: packed mask, uint64 [H, words]; see `vos_shared.metrics.bits`.
        area: number of its pixels.
        boundary: packed boundary of the mask.
        length: number of boundary pixels.
        near: packed mask of the pixels within the tolerance of the boundary.
    """

    bits: Bits
    area: int
    boundary: Bits
    length: int
    near: Bits


def outline(mask: npt.NDArray[Any], tolerance: int, counted: Bits | None = None) -> Outlined:
    """Pack a mask and find its boundary.

    Args:
        mask: [H, W]; nonzero is the object.
        tolerance: largest distance between matching boundaries, in pixels.
        counted: packed mask of the pixels that are not void; None if there are no void pixels.
    """
    bits = pack(mask)
    if counted is not None:
        bits &= counted
    edge = boundary(bits, mask.shape[1])
    return Outlined(bits, count(bits), edge, count(edge), dilate(edge, tolerance))


def region(truth: Outlined, prediction: Outlined) -> float:
    """Region similarity J: intersection over union; 1 if both masks are empty."""
    intersection = count(truth.bits & prediction.bits)
    union = truth.area + prediction.area - intersection
    return intersection / union if union else 1.0


def contour(truth: Outlined, prediction: Outlined) -> float:
    """Contour accuracy F: harmonic mean of precision and recall; 1 if no mask has a boundary, 0 if only one has."""
    if not truth.length or not prediction.length:
        return float(truth.length == prediction.length)
    precision = count(prediction.boundary & truth.near) / prediction.length
    recall = count(truth.boundary & prediction.near) / truth.length
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
