"""Mean IU of YouTube-Objects: J of one foreground, without F, for predictions of any size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from vos_shared.method import ObjectMask
from vos_shared.metrics.davis import FrameScores
from vos_shared.metrics.region import region_similarity


class MeanIU:
    """Intersection over union of all ids together; 1 for a frame in which both masks are empty."""

    def __init__(self) -> None:
        self._scores = FrameScores()

    def add(self, truth: ObjectMask, prediction: ObjectMask) -> None:
        """Score a frame; both masks are uint8 [H, W]."""
        self._scores.region.append(region_similarity(truth, prediction))

    def result(self) -> dict[int | None, FrameScores]:
        """J of all frames so far, under None."""
        return {None: self._scores}


def resized(mask: ObjectMask, size: Sequence[int]) -> ObjectMask:
    """Resize a mask, uint8 [h, w], to [H, W] by Pillow's nearest-neighbour interpolation."""
    height, width = size
    if mask.shape == (height, width):
        return mask
    return np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))
