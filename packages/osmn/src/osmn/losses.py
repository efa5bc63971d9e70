"""The weight regulariser (specification, section 10); the class-balanced cross entropy is in `vos_shared.layers`."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from osmn.networks import OSMN
from vos_shared.layers.upsampling import bilinear_kernel

WEIGHT_DECAY = 2e-4
"""Factor of the L2 term of all convolution weights; biases and batch norms do not decay."""

LITE_WEIGHT_DECAY = 4e-5
"""The same for lite, whose depthwise kernels do not decay either."""


def weight_regulariser(model: OSMN) -> Tensor:
    """decay / 2 times the squared norm of every convolution kernel.

    The frozen bilinear kernels are part of the official total; they add a constant.
    """
    lite = model.architecture.base_model == "lite"
    kernels = [
        value for name, value in model.named_parameters() if value.ndim == 4 and not (lite and ".depthwise." in name)
    ]
    total = torch.stack([kernel.square().sum() for kernel in kernels]).sum()
    decay = LITE_WEIGHT_DECAY if lite else WEIGHT_DECAY
    return 0.5 * decay * (total + _frozen_norm(model))


def _frozen_norm(model: OSMN) -> float:
    if model.architecture.base_model != "osvos":
        return 0.0
    norms = [16 * float(bilinear_kernel(2 ** (level + 1)).square().sum()) for level in range(1, 5)]
    return math.fsum(norms)
