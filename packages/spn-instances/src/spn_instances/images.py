"""Frames as network input (specification, sections 4 and 5)."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vos_shared.method import Frame

MEAN_BGR: Final = (104.00698793, 116.66876762, 122.67891434)
"""Of inference; training has the same, rounded to five decimals, which our training does not copy."""


def network_input(frame: Frame) -> Tensor:
    """uint8 RGB [H, W, 3] -> BGR minus mean, float32 [3, H, W]."""
    bgr: npt.NDArray[np.float32] = frame[:, :, ::-1].astype(np.float32) - np.array(MEAN_BGR, np.float32)
    return torch.from_numpy(np.ascontiguousarray(bgr.transpose(2, 0, 1)))


def soft_to_grey(soft: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Probabilities 0..1 as grey levels 0..255, truncated as the original does."""
    return (soft * np.float32(255)).astype(np.uint8)
