"""Normalisation of images for networks that were trained on ImageNet, or as if they were."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

IMAGE_MEAN: Final = (0.485, 0.456, 0.406)
IMAGE_STD: Final = (0.229, 0.224, 0.225)
"""Of red, green and blue in 0..1, as torchvision's networks take them."""


def normalise_images(images: Tensor) -> Tensor:
    """RGB in 0..1, float [..., 3, H, W], minus `IMAGE_MEAN`, divided by `IMAGE_STD`."""
    mean = torch.tensor(IMAGE_MEAN, dtype=images.dtype, device=images.device).view(3, 1, 1)
    std = torch.tensor(IMAGE_STD, dtype=images.dtype, device=images.device).view(3, 1, 1)
    return (images - mean) / std
