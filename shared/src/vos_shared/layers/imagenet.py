"""Normalisation of images with the statistics of ImageNet."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

IMAGE_MEAN: Final = (0.485, 0.456, 0.406)
IMAGE_STD: Final = (0.229, 0.224, 0.225)
"""Mean and standard deviation of red, green and blue in 0..1, as in torchvision."""


def normalise_images(images: Tensor) -> Tensor:
    """Normalise RGB images, float [..., 3, H, W] in 0..1, with `IMAGE_MEAN` and `IMAGE_STD`."""
    mean = torch.tensor(IMAGE_MEAN, dtype=images.dtype, device=images.device).view(3, 1, 1)
    std = torch.tensor(IMAGE_STD, dtype=images.dtype, device=images.device).view(3, 1, 1)
    return (images - mean) / std
