"""BasicU-Net, DilateU-Net and DenseU-Net (specification, sections 5 to 7)."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unsup_fg.networks.streams import glorot_uniform
from unsup_fg.settings import Architecture

DILATIONS: Final = (1, 2, 4, 8, 16, 32)
_EPSILON: Final = 1e-3
_MOMENTUM: Final = 0.01
"""Share of the new batch in moving averages; TensorFlow's 0.99 is that of the old value."""


class Unit(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, norm: type[nn.BatchNorm2d] = nn.BatchNorm2d) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
        self.norm = norm(outputs, _EPSILON, _MOMENTUM)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H, W]."""
        return F.relu_(self.norm(self.conv(x)))


class BatchStatisticsNorm(nn.BatchNorm2d):
    """Normalises by the statistics of its input: of the batch in training, of each image alone at inference.

    The released DenseU-Net does so, since its blocks are not told whether it trains; it was run with one image a batch.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape."""
        if self.training:
            return super().forward(x)
        # Not F.instance_norm, which copies channels-last maps to the other layout and back.
        images = [F.batch_norm(image, None, None, self.weight, self.bias, True, eps=self.eps) for image in x.split(1)]
        return images[0] if len(images) == 1 else torch.cat(images)  # `cat` copies a single one, too.


def _chain(inputs: int, outputs: int, units: int) -> nn.Sequential:
    return nn.Sequential(*(Unit(inputs if index == 0 else outputs, outputs) for index in range(units)))


def _joined(skip: Tensor, below: Tensor) -> Tensor:
    """Concatenate the skip connection and the map from below at twice its size, in that order."""
    return torch.cat((skip, F.interpolate(below, scale_factor=2, mode="nearest")), 1)


class BasicUNet(nn.Module):
    """Five levels of two units down, two in the centre, five levels of three units up."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        widths = [architecture.channels(channels) for channels in (32, 64, 128, 256, 512)]
        self.down = nn.ModuleList(_chain(before, width, 2) for before, width in zip([3, *widths], widths, strict=False))
        self.center, below = self._center(architecture, widths[-1])
        ups = []
        for width in reversed(widths):
            ups.append(_chain(below + width, width, 3))
            below = width
        self.up = nn.ModuleList(ups)
        self.head = nn.Conv2d(below, 1, 1)
        self.apply(glorot_uniform)

    def _center(self, architecture: Architecture, inputs: int) -> tuple[nn.Module, int]:
        """Build the layers at the lowest level, and return their number of channels."""
        channels = architecture.channels(1024)
        return _chain(inputs, channels, 2), channels

    def forward(self, images: Tensor) -> Tensor:
        """RGB in 0..1 [B, 3, 256, 256] -> map, 0 or more, [B, 1, 256, 256]."""
        x, skips = images, []
        for level in self.down:
            skips.append(level(x))
            x = F.max_pool2d(skips[-1], 2)
        x = self.center(x)
        for level, skip in zip(self.up, reversed(skips), strict=True):
            x = level(_joined(skip, x))
        return F.relu(self.head(x))


class DilatedCenter(nn.Module):
    """Dilated convolutions one after another, without bias and norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dilate = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, bias=False) for dilation in DILATIONS
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape."""
        for layer in self.dilate:
            x = F.relu(layer(x))
        return x


class DilateUNet(BasicUNet):
    """BasicU-Net with dilated convolutions in the centre, which keep their random initial values unless `fixed`."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        for parameter in self.center.parameters():
            nn.init.trunc_normal_(parameter, std=0.05, a=-0.1, b=0.1)
            parameter.requires_grad_(architecture.fixed)

    def _center(self, architecture: Architecture, inputs: int) -> tuple[nn.Module, int]:
        return DilatedCenter(inputs), inputs


class DenseLevel(nn.Module):
    """A block of four units, each of which sees all before it in the block, and a transition of 1 x 1."""

    def __init__(self, inputs: int, growth: int, outputs: int, norm: type[nn.BatchNorm2d]) -> None:
        super().__init__()
        widths = (inputs, growth, 2 * growth, 3 * growth)
        self.units = nn.ModuleList(Unit(width, growth, norm=norm) for width in widths)
        self.transition = Unit(4 * growth, outputs, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H, W]; the input is not part of the concatenation."""
        first, *others = self.units
        grown = first(x)
        for unit in others:
            grown = torch.cat((grown, unit(grown)), 1)
        transition: Tensor = self.transition(grown)
        return transition


class DenseUNet(nn.Module):
    """Four levels of dense blocks down, one in the centre, four up."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        norm = nn.BatchNorm2d if architecture.fixed else BatchStatisticsNorm
        widths = [architecture.channels(channels) for channels in (32, 64, 128, 256)]
        growths = [architecture.channels(growth) for growth in (12, 24, 48, 64)]
        self.down = nn.ModuleList(
            DenseLevel(before, growth, width, norm)
            for before, growth, width in zip([3, *widths], growths, widths, strict=False)
        )
        below = architecture.channels(512)
        self.center = DenseLevel(widths[-1], architecture.channels(128), below, norm)
        ups = []
        for growth, width in zip(reversed(growths), reversed(widths), strict=True):
            ups.append(DenseLevel(width + below, growth, width, norm))
            below = width
        self.up = nn.ModuleList(ups)
        self.head = nn.Conv2d(below, 1, 1)
        self.apply(glorot_uniform)

    def forward(self, images: Tensor) -> Tensor:
        """RGB in 0..1 [B, 3, 256, 256] -> map, 0 or more, [B, 1, 256, 256]."""
        x, skips = images, []
        for level in self.down:
            skips.append(level(x))
            x = F.max_pool2d(skips[-1], 2)
        x = self.center(x)
        for level, skip in zip(self.up, reversed(skips), strict=True):
            x = level(_joined(skip, x))
        return F.relu(self.head(x))
