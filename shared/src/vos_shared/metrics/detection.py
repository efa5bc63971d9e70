"""CorLoc: the share of images in which the predicted box matches an object (Deselaers et al., IJCV 2012)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vos_shared.masks import bounding_box

CORRECT_ABOVE: Final = 0.5
"""IoU above which an object is found (PASCAL's criterion)."""

Box = tuple[int, int, int, int]
"""Top, left, bottom and right in pixels; bottom and right are exclusive."""


def box_from_mask(soft: npt.NDArray[Any], threshold: float = 0.5) -> Box:
    """Box of the largest connected component of a soft mask.

    The mask is scaled to 0..1 by its minimum and maximum and thresholded; pixels that touch at a corner are connected.
    A constant mask gives the box of the whole image.

    Args:
        soft: soft mask [H, W] of any range.
        threshold: pixels above it belong to the object.
    """
    from scipy.ndimage import label

    low, high = float(soft.min()), float(soft.max())
    parts, count = label(soft > low + threshold * (high - low), np.ones((3, 3)))
    if not count:
        return 0, 0, int(soft.shape[0]), int(soft.shape[1])
    largest = int(np.bincount(parts.ravel())[1:].argmax()) + 1
    box = bounding_box(parts == largest)
    assert box is not None
    return box


def box_iou(ours: Box, theirs: Box) -> float:
    """Intersection over union of two boxes."""
    height = min(ours[2], theirs[2]) - max(ours[0], theirs[0])
    width = min(ours[3], theirs[3]) - max(ours[1], theirs[1])
    shared = max(height, 0) * max(width, 0)
    return shared / (_area(ours) + _area(theirs) - shared)


def best_iou(box: Box, objects: Iterable[Box]) -> float:
    """Highest IoU of the box with one of the objects."""
    return max(box_iou(box, one) for one in objects)


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])
