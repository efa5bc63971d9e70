"""Object maps without fine-tuned networks: each object takes the foreground around its last mask.

This is not in the paper, whose objects all have networks of their own. It is what the plain variant does, so that a
video can be segmented in seconds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from vos_shared.method import ObjectMask

REACH = 0.5
"""How far an object's territory reaches beyond its last mask, as a part of the square root of the mask's area."""


def object_maps(
    foreground: npt.NDArray[np.float32], last: ObjectMask, ids: Sequence[int]
) -> npt.NDArray[np.float32]:  # fmt: skip
    """Divide a foreground map among objects: a pixel belongs to the object whose last mask is nearest.

    Args:
        foreground: probabilities, float32 [H, W].
        last: the latest mask of each object, uint8 [H, W] of object ids.
        ids: object ids.

    Returns:
        Soft masks, float32 [K, H, W], in the order of the ids.
    """
    maps = np.zeros((len(ids), *last.shape), np.float32)
    if not last.any():
        return maps
    distance, (rows, columns) = ndimage.distance_transform_edt(last == 0, return_indices=True)
    nearest = last[rows, columns]
    for row, object_id in enumerate(ids):
        area = np.count_nonzero(last == object_id)
        inside = (nearest == object_id) & (distance <= REACH * np.sqrt(area))
        maps[row][inside] = foreground[inside]
    return maps
