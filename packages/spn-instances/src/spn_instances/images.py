"""Frames as network input (specification, sections 4 and 5)."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from vos_shared.method import Frame

MEAN_BGR: Final = (104.00698793, 116.66876762, 122.67891434)
"""Mean of inference, in the order BGR. The released training rounds it to five decimals; ours does not."""


def network_input(frame: Frame) -> Tensor:
    """uint8 RGB [H, W, 3] -> BGR minus mean, float32 [3, H, W]."""
    bgr: npt.NDArray[np.float32] = frame[:, :, ::-1].astype(np.float32) - np.array(MEAN_BGR, np.float32)
    return torch.from_numpy(np.ascontiguousarray(bgr.transpose(2, 0, 1)))


def soft_to_grey(soft: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Probabilities in 0..1 to grey levels 0..255, truncated as in the original."""
    return (soft * np.float32(255)).astype(np.uint8)


def byte_scaled_input(frame: Frame, size: tuple[int, int]) -> Tensor:
    """Resize a frame as the released code does, which stretches its values to the full range of a byte.

    That code subtracts the mean and then resizes with a function that maps the smallest value to 0, the largest to 255.

    Args:
        frame: uint8 RGB [H, W, 3].
        size: height and width of the result.

    Returns:
        float32 [3, h, w], whole numbers 0..255.
    """
    values = network_input(frame).numpy()
    low, high = float(values.min()), float(values.max())
    scale = 255.0 / (high - low) if high > low else 0.0
    bytes_ = ((values - low) * scale + 0.5).clip(0, 255).astype(np.uint8)
    resized = Image.fromarray(bytes_.transpose(1, 2, 0)).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.asarray(resized).transpose(2, 0, 1).astype(np.float32))
