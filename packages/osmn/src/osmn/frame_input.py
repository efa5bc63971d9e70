"""Network input of a frame and its spatial guides, on the device and for all objects at once.

Module `guides` computes the same on the CPU for one object.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from osmn.guides import MAD_TO_STD, MEAN_BGR, MIN_STD


def resize_image(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize bilinearly with antialiasing, as `guides.resize_frame`; values differ by one level at most.

    Args:
        pixels: uint8 [3, H, W].
        size: (height, width).

    Returns:
        uint8 [3, height, width].
    """
    if pixels.shape[-2:] == size:
        return pixels
    on_cpu = pixels.device.type == "cpu"  # Elsewhere PyTorch resizes floating point only.
    image = pixels[None] if on_cpu else pixels[None].float()
    resized = F.interpolate(image, size, mode="bilinear", antialias=True, align_corners=False)[0]
    return resized if on_cpu else resized.round_().clamp_(0, 255).byte()


def normalise(pixels: Tensor, scale: float) -> Tensor:
    """RGB uint8 [3, H, W] to BGR minus the mean, times `scale`: float32 [1, 3, H, W], channels last."""
    mean = torch.tensor(MEAN_BGR, device=pixels.device)[:, None, None]
    image = (pixels.flip(0).float() - mean) * scale
    return image[None].contiguous(memory_format=torch.channels_last)


def spatial_guides(masks: Tensor) -> Tensor:
    """Gaussians at the median of each object's pixels, as wide as their scaled median absolute deviation.

    Args:
        masks: bool [K, H, W].

    Returns:
        float32 [K, 1, H, W] in 0..1; all zero for an empty mask.
    """
    y, x = _profile(masks.sum(2)), _profile(masks.sum(1))  # [K, H], [K, W]
    return (y[:, :, None] * x[:, None, :])[:, None] * masks.flatten(1).any(1)[:, None, None, None]


def _profile(counts: Tensor) -> Tensor:
    """The Gaussian along one axis from the number of object pixels at each coordinate: [K, n] -> [K, n]."""
    places = torch.arange(counts.shape[1], device=counts.device, dtype=torch.float32).expand(counts.shape)
    centre = _median(places, counts)
    distances, order = (places - centre).abs().sort(1)
    std = (MAD_TO_STD * _median(distances, counts.gather(1, order))).clamp_(min=MIN_STD)
    return (-0.5 * ((places - centre) / std).square()).exp()


def _median(values: Tensor, counts: Tensor) -> Tensor:
    """Median as in NumPy, from values in rising order [K, n] and how often each occurs [K, n] -> [K, 1]."""
    reached = counts.cumsum(1)
    total = reached[:, -1:]
    last = values.shape[1] - 1
    low = (reached <= (total - 1) // 2).sum(1, keepdim=True).clamp_(max=last)
    high = (reached <= total // 2).sum(1, keepdim=True).clamp_(max=last)
    return (values.gather(1, low) + values.gather(1, high)) / 2


def dilated_guides(masks: Tensor, radius: int = 5) -> Tensor:
    """masktrack's guides: the masks dilated by a disk, times 255; bool [K, H, W] -> float32 [K, 1, H, W]."""
    reach = torch.arange(-radius, radius + 1, device=masks.device)
    disk = (reach[:, None].square() + reach.square() <= radius**2).float()
    touched = F.conv2d(masks[:, None].float(), disk[None, None], padding=radius)
    return (touched > 0.5) * 255.0
