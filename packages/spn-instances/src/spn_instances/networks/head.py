"""The head of ResNetF, from features of three strides to scores (specification, section 2.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spn_instances.networks.trunks import Features
from vos_shared.layers.upsampling import bilinear_kernel

SCALE = 0.2
"""Constant factor of the features of strides 16 and 8."""


class FusionHead(nn.Module):
    """Fuses features of three strides into scores.

    The original upsamples up to 3072 channels and then projects them. Both are linear, and upsampling treats all
    channels alike, so features are projected first here: the same function for a fraction of the work.

    Args:
        channels: of the features of strides 8, 16 and 32.
        hidden: channels of the fused features.
        offsets: where the three upsampled maps are cropped, in cells or pixels.
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
        x = F.conv2d(res4 * _per_channel(self.scale_res4), to4) + _cropped(
            _deconvolution(x, self.kernel4), self.offsets[0], res4
        )
        x = _cropped(_deconvolution(x, self.kernel4), self.offsets[1], res3)
        x = x + F.conv2d(res3 * _per_channel(self.scale_res3), to3, self.feat08.bias)
        scores = _deconvolution(self.score08(x), self.kernel16)
        top = self.offsets[2]
        return scores[..., top : top + size[0], top : top + size[1]]


def _per_channel(values: Tensor) -> Tensor:
    return values[:, None, None]


def _cropped(x: Tensor, offset: int, like: Tensor) -> Tensor:
    """Crop to the size of another map."""
    height, width = like.shape[-2:]
    return x[..., offset : offset + height, offset : offset + width]


def _deconvolution(x: Tensor, kernel: Tensor) -> Tensor:
    """Transposed convolution of each channel with a bilinear kernel, its stride half the kernel, without padding."""
    channels = x.shape[1]
    weight = kernel.to(x.dtype).expand(channels, 1, -1, -1)
    return F.conv_transpose2d(x, weight, stride=kernel.shape[-1] // 2, groups=channels)


class DenseHead(FusionHead):
    """The head exactly as Caffe runs it: each upsampler has a kernel for every pair of channels.

    It is for files whose upsamplers are not bilinear. With bilinear ones it computes the same as `FusionHead`, many
    times slower. Arguments as `FusionHead`.
    """

    upsample_res5: Tensor
    upsample_res4: Tensor
    upscore: Tensor

    def __init__(self, channels: tuple[int, int, int], hidden: int, offsets: tuple[int, int, int]) -> None:
        super().__init__(channels, hidden, offsets)
        _, res4, res5 = channels
        self.register_buffer("upsample_res5", dense_bilinear(res5, 4))
        self.register_buffer("upsample_res4", dense_bilinear(res4 + res5, 4))
        self.register_buffer("upscore", dense_bilinear(2, 16))

    def forward(self, features: Features, size: tuple[int, int]) -> Tensor:
        """Features of strides 8, 16, 32 -> scores [B, 2, H, W] of background and foreground."""
        res3, res4, res5 = features
        first, second, third = self.offsets
        crop_res5 = _cropped(F.conv_transpose2d(res5, self.upsample_res5, stride=2), first, res4)
        concat_res4 = torch.cat([res4 * _per_channel(self.scale_res4), crop_res5], 1)
        crop_res4 = _cropped(F.conv_transpose2d(concat_res4, self.upsample_res4, stride=2), second, res3)
        concat_res3 = torch.cat([crop_res4, res3 * _per_channel(self.scale_res3)], 1)
        scores = F.conv_transpose2d(self.score08(self.feat08(concat_res3)), self.upscore, stride=8)
        return scores[..., third : third + size[0], third : third + size[1]]


def dense_bilinear(channels: int, side: int) -> Tensor:
    """A bilinear kernel [C, C, side, side] for transposed convolution without groups, as Caffe stores it."""
    weight = torch.zeros(channels, channels, side, side)
    weight[range(channels), range(channels)] = bilinear_kernel(side)
    return weight
