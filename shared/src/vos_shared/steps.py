"""Checks and conversions that every `Segmenter.step` needs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from vos_shared.errors import BadMask, BadVideo
from vos_shared.masks import describe_size
from vos_shared.method import Frame, ObjectMask, SoftMasks


def check_step(frame: Frame, prompt: ObjectMask | None, size: tuple[int, int] | None) -> tuple[int, int]:
    """Check the arguments of `Segmenter.step`.

    Args:
        frame: the frame, which should be uint8 RGB [H, W, 3].
        prompt: the prompt, which should be uint8 [H, W] or None.
        size: (H, W) of the earlier frames; None for the first frame.

    Returns:
        The size of the frame, (H, W).

    Raises:
        BadVideo: the frame is not uint8 RGB, or its size differs from that of earlier frames.
        BadMask: the prompt is not uint8, or its size differs from that of the frame.
    """
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise BadVideo(f"a frame is {frame.dtype} {list(frame.shape)}; frames are uint8 RGB [H, W, 3]")
    height, width = frame.shape[:2]
    if size is not None and size != (height, width):
        raise BadVideo(
            f"a frame is {describe_size((height, width))}, the first was {describe_size(size)}; "
            "all frames of a video must have one size"
        )
    if prompt is not None and (prompt.dtype != np.uint8 or prompt.shape != (height, width)):
        raise BadMask(
            f"a mask is {prompt.dtype} {list(prompt.shape)}, its frame {[height, width]}; "
            "masks are uint8 and have the size of their frame"
        )
    return height, width


def stack_soft_masks(soft_masks: Mapping[int, npt.NDArray[np.float32]], size: tuple[int, int]) -> SoftMasks:
    """Stack soft masks, float32 [H, W] by object id, to float32 [K, H, W]; row k is object k + 1, missing ids are 0."""
    stacked = np.zeros((max(soft_masks, default=0), *size), np.float32)
    for object_id, soft_mask in soft_masks.items():
        stacked[object_id - 1] = soft_mask
    return stacked
