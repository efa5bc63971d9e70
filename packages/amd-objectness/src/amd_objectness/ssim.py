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
    """(1 - SSIM) / 2 of each box, [N, C, H - 2, W - 2], and the gradient of their sum for `made`, [N, C, H, W]."""
    mean1, mean2 = _box(made), _box(images)
    product, squares = mean1 * mean2, (mean1 * mean1).addcmul_(mean2, mean2)
    covariance = _box(made * images).sub_(product)
    variances = _box((made * made).addcmul_(images, images)).sub_(squares)
    over1, over2 = product.mul_(2).add_(C1), covariance.mul_(2).add_(C2)
    under1, under2 = squares.add_(C1), variances.add_(C2)
    under = under1 * under2
    similarity = (over1 * over2).div_(under)
    distances = (1 - similarity).div_(2).clamp_(0, 1)  # Only rounding brings it beyond, where there is no slope.
    # Half of the derivative of SSIM for the means of made, of made * images and of made^2.
    of_mean = (over2 - over1).mul_(mean2).div_(under)
    of_mean -= (1 / under1 - 1 / under2).mul_(mean1).mul_(similarity)
    of_product, of_square = over1.div_(under), similarity.div_(under2).div_(-2)
    gradient = _unbox(of_mean).addcmul_(images, _unbox(of_product)).addcmul_(made, _unbox(of_square), value=2)
    return distances, gradient.neg_()


def _box(maps: Tensor) -> Tensor:
    """Mean of each 3x3 pixels, [N, C, H, W] to [N, C, H - 2, W - 2]; faster than pooling on a processor."""
    rows = (maps[..., :-2] + maps[..., 1:-1]).add_(maps[..., 2:])
    return (rows[..., :-2, :] + rows[..., 1:-1, :]).add_(rows[..., 2:, :]).div_(9)


def _unbox(gradients: Tensor) -> Tensor:
    """The gradient of maps, [N, C, H, W], from that of their boxes."""
    return _box(F.pad(gradients, (2, 2, 2, 2)))
