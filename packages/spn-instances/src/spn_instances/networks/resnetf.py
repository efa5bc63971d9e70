"""ResNetF, the fully convolutional network behind foreground and object masks (paper, figure 2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spn_instances.networks.efficientnet import EfficientNetLite0
from spn_instances.networks.trunks import CaffeResNet, Features, MobileNet, ResNet18, Trunk
from spn_instances.settings import TrunkName
from vos_shared.layers.upsampling import bilinear_kernel

SCALE = 0.2
"""Constant factor of the features of strides 16 and 8."""


@dataclass(frozen=True)
class Architecture:
    """Which network it is; by default the official one.

    Attributes:
        trunk: ``resnet`` is the official one; ``resnet18``, ``mobilenet`` and ``efficientnet-lite0`` are for small
            machines.
        blocks: resnet: of its four stages.
        width: resnet: channels of its first stage.
        hidden: channels of the fused features (feat08).
    """

    trunk: TrunkName = "resnet"
    blocks: tuple[int, int, int, int] = (3, 4, 23, 3)
    width: int = 64
    hidden: int = 128

    @property
    def offsets(self) -> tuple[int, int, int]:
        """Where the three upsampled maps are cropped; the official network's crops are off the centre (1, 1, 4)."""
        return (2, 0, 8) if self.trunk == "resnet" else (1, 1, 4)


class FusionHead(nn.Module):
    """Fuses features of three strides into scores (specification, section 2.2).

    The original upsamples up to 3072 channels and projects them then. Both are linear, and upsampling treats all
    channels alike, so here features are projected first: the same function, at a fraction of the work.
    """

    scale_res3: Tensor
    scale_res4: Tensor
    kernel4: Tensor
    kernel16: Tensor

    def __init__(self, channels: tuple[int, int, int], hidden: int, offsets: tuple[int, int, int]) -> None:
        super().__init__()
        res3, res4, res5 = self.channels = channels
        self.offsets = offsets
        self.register_buffer("scale_res3", torch.full((res3,), SCALE))
        self.register_buffer("scale_res4", torch.full((res4,), SCALE))
        self.register_buffer("kernel4", bilinear_kernel(4), persistent=False)
        self.register_buffer("kernel16", bilinear_kernel(16), persistent=False)
        self.feat08 = nn.Conv2d(res4 + res5 + res3, hidden, 1)
        self.score08 = nn.Conv2d(hidden, 2, 1)
        for layer in (self.feat08, self.score08):
            nn.init.normal_(layer.weight, std=0.01)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)

    def forward(self, features: Features, size: tuple[int, int]) -> Tensor:
        """Features of strides 8, 16, 32 -> scores [B, 2, H, W] of background and foreground."""
        res3, res4, res5 = features
        of3, of4, of5 = self.channels
        # The official order of channels is res4, res5, res3.
        to4, to5, to3 = self.feat08.weight.split([of4, of5, of3], dim=1)
        x = F.conv2d(res5, to5)
        x = F.conv2d(res4 * _per_channel(self.scale_res4), to4) + _upsampled(x, self.kernel4, self.offsets[0], res4)
        x = _upsampled(x, self.kernel4, self.offsets[1], res3)
        x = x + F.conv2d(res3 * _per_channel(self.scale_res3), to3, self.feat08.bias)
        scores = _deconvolution(self.score08(x), self.kernel16)
        top = self.offsets[2]
        return scores[..., top : top + size[0], top : top + size[1]]


def _per_channel(values: Tensor) -> Tensor:
    return values[:, None, None]


def _upsampled(x: Tensor, kernel: Tensor, offset: int, like: Tensor) -> Tensor:
    """Upsample and crop to the size of another map."""
    height, width = like.shape[-2:]
    return _deconvolution(x, kernel)[..., offset : offset + height, offset : offset + width]


def _deconvolution(x: Tensor, kernel: Tensor) -> Tensor:
    """Transposed convolution with one bilinear kernel for each channel, stride half the kernel, without padding."""
    channels = x.shape[1]
    weight = kernel.to(x.dtype).expand(channels, 1, -1, -1)
    return F.conv_transpose2d(x, weight, stride=kernel.shape[-1] // 2, groups=channels)


class ResNetF(nn.Module):
    """Scores of background and foreground of an image of any size.

    Args:
        architecture: of trunk and head.
    """

    def __init__(self, architecture: Architecture | None = None) -> None:
        super().__init__()
        self.architecture = architecture = architecture or Architecture()
        self.trunk = _trunk(architecture)
        self.head = FusionHead(self.trunk.channels, architecture.hidden, architecture.offsets)

    def forward(self, images: Tensor) -> Tensor:
        """BGR minus mean, [B, 3, H, W] -> scores [B, 2, H, W]."""
        scores: Tensor = self.head(self.features(images), tuple(images.shape[-2:]))
        return scores

    def features(self, images: Tensor) -> Features:
        """BGR minus mean, [B, 3, H, W] -> features of the trunk."""
        return self.trunk.late(self.early_features(images))

    def early_features(self, images: Tensor) -> Tensor:
        """BGR minus mean, [B, 3, H, W] -> features of stride 8.

        Sizes at which the original aborts are padded at the bottom and the right, by repeating the last row or column.
        """
        height, width = images.shape[-2:]
        if self.architecture.trunk == "resnet":
            padding = (0, _valid_length(width) - width, 0, _valid_length(height) - height)
            images = F.pad(images, padding, mode="replicate") if any(padding) else images
        return self.trunk.early(images)


def _trunk(architecture: Architecture) -> Trunk:
    if architecture.trunk == "resnet":
        return CaffeResNet(architecture.blocks, architecture.width)
    small: dict[str, Callable[[], Trunk]]
    small = {"resnet18": ResNet18, "mobilenet": MobileNet, "efficientnet-lite0": EfficientNetLite0}
    return small[architecture.trunk]()


def _valid_length(length: int) -> int:
    """The least length from this one on at which all of the official crops fit."""
    return next(size for size in range(max(length, 3), length + 64) if _fits(size))


def _fits(length: int) -> bool:
    pooled = -(-((length + 1) // 2 - 3) // 2) + 1
    res3 = (pooled + 1) // 2
    res4 = (res3 + 1) // 2
    res5 = (res4 + 1) // 2
    # A transposed convolution makes 2 n + 2 cells, or 8 n + 8, of n; crops start at 2, 0 and 8.
    return pooled > 0 and 2 * res5 >= res4 and 2 * res4 + 2 >= res3 and 8 * res3 >= length
