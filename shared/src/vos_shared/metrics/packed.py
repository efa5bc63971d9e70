"""J and F of packed masks: everything about one mask is computed once, however many masks it is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from vos_shared.metrics.bits import Bits, boundary, count, dilate, pack


@dataclass(frozen=True)
class Outlined:
    """A packed mask with its boundary.

    Attributes:
        bits: the mask, uint64 [H, words]; see `vos_shared.metrics.bits`.
        area: its pixels.
        boundary: of the mask, packed.
        length: pixels of the boundary.
        near: pixels within the tolerance of the boundary, packed.
    """

    bits: Bits
    area: int
    boundary: Bits
    length: int
    near: Bits


def outline(mask: npt.NDArray[Any], tolerance: int, counted: Bits | None = None) -> Outlined:
    """Pack a mask and find its boundary.

    Args:
        mask: [H, W] of bool or of numbers where nonzero counts.
        tolerance: distance in pixels at which boundaries still match.
        counted: packed mask of the pixels that are not void; None where all count.
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
    """Contour accuracy F: harmonic mean of the boundary's precision and recall.

    Without any boundary in one of the masks its matches are perfect and those of the other worth nothing, so that F is
    0; without any in both it is 1.
    """
    if not truth.length or not prediction.length:
        return float(truth.length == prediction.length)
    precision = count(prediction.boundary & truth.near) / prediction.length
    recall = count(truth.boundary & prediction.near) / truth.length
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
