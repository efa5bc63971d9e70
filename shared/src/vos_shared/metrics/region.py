"""Region similarity J (Perazzi et al., CVPR 2016, section 4)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def region_similarity(
    truth: npt.NDArray[Any], prediction: npt.NDArray[Any], void: npt.NDArray[Any] | None = None
) -> float:
    """Intersection over union of two masks.

    Args:
        truth: [H, W]; nonzero is the object.
        prediction: [H, W]; nonzero is the object.
        void: [H, W]; nonzero pixels are ignored.

    Returns:
        J in 0..1; 1 if both masks are empty.

    Raises:
        ValueError: the masks differ in size.
    """
    truth, prediction = aligned(truth, prediction, void)
    union = np.count_nonzero(truth | prediction)
    return float(np.count_nonzero(truth & prediction) / union) if union else 1.0


def aligned(
    truth: npt.NDArray[Any], prediction: npt.NDArray[Any], void: npt.NDArray[Any] | None
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Both masks as bool [H, W], with void pixels cleared; ValueError unless all are [H, W] of one size."""
    shapes = {mask.shape for mask in (truth, prediction, void) if mask is not None}
    if len(shapes) > 1 or truth.ndim != 2:
        raise ValueError(f"masks must be [H, W] of one size, not {' and '.join(map(str, sorted(shapes)))}")
    truth, prediction = truth.astype(bool), prediction.astype(bool)
    if void is None:
        return truth, prediction
    counted = ~void.astype(bool)
    return truth & counted, prediction & counted
