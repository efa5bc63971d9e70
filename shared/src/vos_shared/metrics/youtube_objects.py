"""Mean IU of YouTube-Objects: J of one foreground, no F; predictions may be of another size than the labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from vos_shared.method import ObjectMask
from vos_shared.metrics.davis import FrameScores
from vos_shared.metrics.region import region_similarity


class MeanIU:
    """Intersection over union of whatever has an id; 1 in a frame where nothing has one in either mask."""

    def __init__(self) -> None:
        self._scores = FrameScores()

    def add(self, truth: ObjectMask, prediction: ObjectMask) -> None:
        """Score one frame; both masks uint8 [H, W]."""
        self._scores.region.append(region_similarity(truth, prediction))

    def result(self) -> dict[int | None, FrameScores]:
        """J of all frames so far, under None."""
        return {None: self._scores}


def resized(mask: ObjectMask, size: Sequence[int]) -> ObjectMask:
    """A mask, uint8 [h, w], at another size [H, W], each pixel that of the nearest one (as Pillow has it)."""
    height, width = size
    if mask.shape == (height, width):
        return mask
    return np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))
