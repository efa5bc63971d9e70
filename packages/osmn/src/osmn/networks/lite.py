"""The lite variant: both trunks are MobileNet-v1, four of its blocks are modulated (specification, section 6)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from osmn.networks.layers import ConvNorm, resize_legacy_bilinear, side_score
from osmn.networks.segmentation import SIDE_CHANNELS, Modulation

WIDTHS = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
MODULATED: dict[str, int] = {"conv3": 128, "conv5": 256, "conv11": 512, "conv13": 1024}
"""Modulated pointwise blocks and their channels; strides 4, 8, 16, 32."""
_MOMENTUM = 0.003  # decay 0.997


def _add_mobilenet(module: nn.Module) -> None:
    module.add_module("Conv2d_0", ConvNorm(3, 32, 3, stride=2, momentum=_MOMENTUM))
    inputs = 32
    for number, (width, stride) in enumerate(zip(WIDTHS, STRIDES, strict=True), start=1):
        depthwise = ConvNorm(inputs, inputs, 3, stride=stride, groups=inputs, momentum=_MOMENTUM)
        module.add_module(f"Conv2d_{number}_depthwise", depthwise)
        module.add_module(f"Conv2d_{number}_pointwise", ConvNorm(inputs, width, 1, momentum=_MOMENTUM))
        inputs = width


def _block(module: nn.Module, number: int, x: Tensor) -> Tensor:
    x = F.relu6(module.get_submodule(f"Conv2d_{number}_depthwise")(x))
    return F.relu6(module.get_submodule(f"Conv2d_{number}_pointwise")(x))


def first_blocks(trunk: nn.Module, count: int) -> list[nn.Module]:
    """The first convolution of a MobileNet trunk and its first `count` depthwise-separable blocks."""
    names = ["Conv2d_0"]
    for number in range(1, count + 1):
        names += [f"Conv2d_{number}_depthwise", f"Conv2d_{number}_pointwise"]
    return [trunk.get_submodule(name) for name in names]


class LiteVisualModulator(nn.Module):
    """MobileNet-v1 on the visual guide and one head a modulated block."""

    def __init__(self, head_width: int) -> None:
        super().__init__()
        _add_mobilenet(self)
        self.logits = nn.Conv2d(1024, head_width, 1)
        self.heads = nn.ModuleList(nn.Conv2d(head_width, channels, 1) for channels in MODULATED.values())

    def forward(self, guide: Tensor) -> Tensor:
        """Visual guide [K, 3, 224, 224] -> gamma [K, 1920], block after block."""
        x = F.relu6(self.get_submodule("Conv2d_0")(guide))
        for number in range(1, len(WIDTHS) + 1):
            x = _block(self, number, x)
        x = F.relu(self.logits(x.mean((-2, -1), keepdim=True)))
        return torch.cat([head(x) for head in self.heads], dim=1).flatten(1)


class LiteNet(nn.Module):
    """MobileNet-v1 trunk with side outputs at four strides."""

    def __init__(self) -> None:
        super().__init__()
        _add_mobilenet(self)
        for stage, channels in MODULATED.items():
            self.add_module(f"{stage}_16", nn.Conv2d(channels, SIDE_CHANNELS, 3, padding=1))
        self.score = nn.Conv2d(4 * SIDE_CHANNELS, 1, 1)

    def forward(self, image: Tensor, modulation: Modulation) -> Tensor:
        """Image [B, 3, H, W] -> logits [K, 1, H, W]; the official code takes multiples of 32 only, this any size."""
        height, width = image.shape[-2:]
        half = (height // 2, width // 2)
        x = F.relu6(self.get_submodule("Conv2d_0")(image))
        scores: list[Tensor] = []
        weights = iter(self.score.weight.split(SIDE_CHANNELS, dim=1))
        for number in range(1, len(WIDTHS) + 1):
            x = _block(self, number, x)
            if (stage := f"conv{number}") in MODULATED:
                x = modulation(stage, x)
                score = side_score(x, self.get_submodule(f"{stage}_16"), next(weights))
                scores.append(resize_legacy_bilinear(score, half))
        assert self.score.bias is not None
        return resize_legacy_bilinear(torch.stack(scores).sum(0) + self.score.bias[:, None, None], (height, width))
