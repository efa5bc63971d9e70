"""The lite variant: both trunks are MobileNet-v1, four of its blocks are modulated (specification, section 6)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from osmn.networks.layers import ConvNorm, side_score
from osmn.networks.segmentation import SIDE_CHANNELS, Modulation
from vos_shared.layers.tensorflow import resize_legacy_bilinear

WIDTHS = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
MODULATED: dict[str, int] = {"conv3": 128, "conv5": 256, "conv11": 512, "conv13": 1024}
"""Modulated pointwise blocks and their channels; strides 4, 8, 16, 32."""
_MOMENTUM = 0.003  # decay 0.997


class SeparableBlock(nn.Module):
    """A depthwise and a pointwise convolution, each with batch norm and ReLU6."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.depthwise = ConvNorm(inputs, inputs, 3, stride=stride, groups=inputs, momentum=_MOMENTUM)
        self.pointwise = ConvNorm(inputs, outputs, 1, momentum=_MOMENTUM)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, ceil(H / stride), ceil(W / stride)]."""
        return F.relu6(self.pointwise(F.relu6(self.depthwise(x))))


class MobileNet(nn.Module):
    """MobileNet-v1: a convolution of stride 2 and 13 depthwise-separable blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(3, 32, 3, stride=2, momentum=_MOMENTUM)
        self.blocks = nn.ModuleList(
            SeparableBlock(inputs, width, stride)
            for inputs, width, stride in zip((32, *WIDTHS[:-1]), WIDTHS, STRIDES, strict=True)
        )

    def first(self, count: int) -> list[nn.Module]:
        """The stem and the first `count` blocks."""
        return [self.stem, *self.blocks[:count]]


class LiteVisualModulator(MobileNet):
    """MobileNet-v1 on the visual guide and one head a modulated block."""

    def __init__(self, head_width: int) -> None:
        super().__init__()
        self.logits = nn.Conv2d(1024, head_width, 1)
        self.heads = nn.ModuleList(nn.Conv2d(head_width, channels, 1) for channels in MODULATED.values())

    def forward(self, guide: Tensor) -> Tensor:
        """Visual guide [K, 3, 224, 224] -> gamma [K, 1920], block after block."""
        x = F.relu6(self.stem(guide))
        for block in self.blocks:
            x = block(x)
        x = F.relu(self.logits(x.mean((-2, -1), keepdim=True)))
        return torch.cat([head(x) for head in self.heads], dim=1).flatten(1)


class LiteNet(MobileNet):
    """MobileNet-v1 trunk with side outputs at four strides."""

    def __init__(self) -> None:
        super().__init__()
        self.conv3_16 = nn.Conv2d(128, SIDE_CHANNELS, 3, padding=1)
        self.conv5_16 = nn.Conv2d(256, SIDE_CHANNELS, 3, padding=1)
        self.conv11_16 = nn.Conv2d(512, SIDE_CHANNELS, 3, padding=1)
        self.conv13_16 = nn.Conv2d(1024, SIDE_CHANNELS, 3, padding=1)
        self.score = nn.Conv2d(4 * SIDE_CHANNELS, 1, 1)

    def forward(self, image: Tensor, modulation: Modulation) -> Tensor:
        """Image [B, 3, H, W] -> logits [K, 1, H, W]; H and W may be any; the official code needs multiples of 32."""
        height, width = image.shape[-2:]
        half = (height // 2, width // 2)
        x = F.relu6(self.stem(image))
        logits: list[Tensor] = []
        sides = dict(zip(MODULATED, (self.conv3_16, self.conv5_16, self.conv11_16, self.conv13_16), strict=True))
        fuse = iter(self.score.weight.split(SIDE_CHANNELS, dim=1))
        for number, block in enumerate(self.blocks, start=1):
            x = block(x)
            layer = f"conv{number}"
            if layer in sides:
                x = modulation(layer, x)
                logits.append(resize_legacy_bilinear(side_score(x, sides[layer], next(fuse)), half))
        assert self.score.bias is not None
        return resize_legacy_bilinear(torch.stack(logits).sum(0) + self.score.bias[:, None, None], (height, width))
