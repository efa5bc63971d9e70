"""Structural similarity over boxes of 3x3 pixels without padding, and its gradient (specification, 5.3)."""

from __future__ import annotations

from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

C1: Final = 0.01**2
C2: Final = 0.03**2


def structural_distance(made: Tensor, images: Tensor) -> Tensor:
    """Mean of (1 - SSIM) / 2, which is in 0..1, over all boxes and channels of each image.

    Args:
        made: float [N, C, H, W].
        images: the same; they get no gradient.

    Returns:
        float [N].

    Raises:
        ValueError: a gradient of the images is wanted.
    """
    if images.requires_grad:
        raise ValueError("images of structural_distance get no gradient")
    means: Tensor = _Distance.apply(made, images)
    return means


class _Distance(torch.autograd.Function):
    """Computes the gradient with the distances; on a processor for one image at a time, as its cache keeps that."""

    @staticmethod
    def forward(ctx: Any, made: Tensor, images: Tensor) -> Tensor:
        size = 1 if made.device.type == "cpu" else len(made)
        pairs = zip(made.split(size), images.split(size), strict=True)
        distances, gradients = zip(*(distances_and_gradient(*pair) for pair in pairs), strict=True)
        ctx.save_for_backward(torch.cat(gradients).div_(distances[0][0].numel()))
        return torch.cat([part.mean((1, 2, 3)) for part in distances])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.saved_tensors[0] * gradients[0][:, None, None, None], None


def distances_and_gradient(made: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """(1 - SSIM) / 2 of each box, [N, C, H - 2, W - 2], and the gradient of their sum for `made`, [N, C, H, W].

    SSIM is the product of two quotients, of means and of variances.
    """
    mean1, mean2 = _box(made), _box(images)
    product, squares = mean1 * mean2, mean1 * mean1 + mean2 * mean2
    covariance = _box(made * images).sub_(product)
    variances = _box(made * made + images * images).sub_(squares)
    under1, under2 = squares.add_(C1), variances.add_(C2)
    quotient1 = product.mul_(2).add_(C1).div_(under1)
    quotient2 = covariance.mul_(2).add_(C2).div_(under2)
    distances = (1 - quotient1 * quotient2).div_(2)
    within = ((distances >= 0) & (distances <= 1)).to(distances)  # Elsewhere, by rounding, there is no gradient.
    # Half of the derivative of SSIM for the means of made, of made * images and of made^2.
    of_product = (quotient1 / under2).mul_(within)
    of_mean = torch.addcmul(mean2, quotient1, mean1, value=-1).mul_(quotient2).mul_(within).div_(under1)
    of_mean -= torch.addcmul(mean2, quotient2, mean1, value=-1).mul_(of_product)
    of_square = _unbox(of_product * quotient2)
    gradient = (of_square * made).sub_(_unbox(of_product) * images).sub_(_unbox(of_mean))
    return distances.clamp_(0, 1), gradient


def _box(maps: Tensor) -> Tensor:
    """Mean of each 3x3 pixels, [N, C, H, W] to [N, C, H - 2, W - 2]; faster than pooling on a processor."""
    rows = (maps[..., :-2] + maps[..., 1:-1]).add_(maps[..., 2:])
    return (rows[..., :-2, :] + rows[..., 1:-1, :]).add_(rows[..., 2:, :]).div_(9)


def _unbox(gradients: Tensor) -> Tensor:
    """The gradient of maps, [N, C, H, W], from that of their boxes."""
    return _box(F.pad(gradients, (2, 2, 2, 2)))
