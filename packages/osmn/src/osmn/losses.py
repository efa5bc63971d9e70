"""Class-balanced cross entropy and the weight regulariser (specification, section 10)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from osmn.networks import OSMN
from osmn.networks.layers import bilinear_kernel

WEIGHT_DECAY = 2e-4
"""Factor of the L2 term over all convolution weights; biases and batch norms have none."""

LITE_WEIGHT_DECAY = 4e-5
"""The same for lite, whose depthwise kernels have none either."""


def balanced_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy in which either class weighs what the other one's share is; summed, not averaged.

    Args:
        logits: [B, 1, H, W].
        labels: bool [B, 1, H, W].

    Returns:
        Scalar; the class shares are taken over the whole batch.
    """
    positive = labels.sum().to(logits.dtype)
    negative = labels.numel() - positive
    on_object = F.softplus(-logits)[labels].sum()
    on_background = F.softplus(logits)[~labels].sum()
    return (negative * on_object + positive * on_background) / labels.numel()


def weight_regulariser(model: OSMN) -> Tensor:
    """decay / 2 times the squared norm of every convolution kernel.

    The frozen bilinear kernels count as in the official total: they add a constant.
    """
    lite = model.architecture.base_model == "lite"
    kernels = [
        value for name, value in model.named_parameters() if value.ndim == 4 and not (lite and "_depthwise" in name)
    ]
    total = torch.stack([kernel.square().sum() for kernel in kernels]).sum()
    decay = LITE_WEIGHT_DECAY if lite else WEIGHT_DECAY
    return 0.5 * decay * (total + _frozen_norm(model))


def _frozen_norm(model: OSMN) -> float:
    if model.architecture.base_model != "osvos":
        return 0.0
    norms = [16 * float(bilinear_kernel(2 ** (level + 1)).square().sum()) for level in range(1, 5)]
    return math.fsum(norms)
