"""Contour accuracy F (Perazzi et al., CVPR 2016, section 4; boundaries after Martin et al., PAMI 2004)."""

from __future__ import annotations

from math import ceil, hypot
from typing import Any, Final

import numpy.typing as npt

from vos_shared.metrics.packed import contour, outline
from vos_shared.metrics.region import aligned

BOUND_TH: Final = 0.008
"""Largest distance between matching boundaries in DAVIS, as a share of the image's diagonal."""


def contour_accuracy(
    truth: npt.NDArray[Any],
    prediction: npt.NDArray[Any],
    bound_th: float = BOUND_TH,
    void: npt.NDArray[Any] | None = None,
) -> float:
    """Harmonic mean of precision and recall of boundary pixels that match within a distance.

    Args:
        truth: [H, W]; nonzero is the object.
        prediction: [H, W]; nonzero is the object.
        bound_th: the distance: below 1 a share of the image's diagonal, otherwise pixels.
        void: [H, W]; nonzero pixels belong to no object.

    Returns:
        F in 0..1; 1 if neither mask has a boundary.

    Raises:
        ValueError: the masks differ in size.
    """
    truth, prediction = aligned(truth, prediction, void)
    distance = tolerance(truth.shape, bound_th)
    return contour(outline(truth, distance), outline(prediction, distance))


def tolerance(shape: tuple[int, ...], bound_th: float = BOUND_TH) -> int:
    """Matching distance in whole pixels for an image [H, W]; 8 at 480 x 854."""
    return ceil(bound_th if bound_th >= 1 else bound_th * hypot(shape[0], shape[1]))
