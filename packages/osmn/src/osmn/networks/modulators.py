"""The two modulators: what the object looks like (visual) and where it was (spatial)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from osmn.networks.layers import ConvNorm
from osmn.networks.vgg import VGGTrunk
from vos_shared.layers.tensorflow import avg_pool_same, max_pool_same

GUIDE_SIZE = 224
"""Height and width of the visual guide in pixels."""


BiasMaps: TypeAlias = Callable[[int, int], Tensor]
"""Beta of the channels start..stop of a stage, [K, stop - start, h, w]; made when a layer asks for it, because those of
all layers of a 480p frame would fill 130 MB an object."""


class VisualModulator(VGGTrunk):
    """VGG16 classifier that turns the masked crop of an object into one scale per modulated channel."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.fc6 = nn.Conv2d(512, 4096, 7)
        self.fc7 = nn.Conv2d(4096, 4096, 1)
        self.fc8 = nn.Conv2d(4096, outputs, 1)
        self.dropout = nn.Dropout(0.5)

    def forward(self, guide: Tensor) -> Tensor:
        """Visual guide [K, 3, 224, 224] -> gamma [K, outputs], in network order."""
        x = guide
        for stage in self.stages:
            for convolution in stage:
                x = convolution(x).relu_()
            x = max_pool_same(x)
        x = self.dropout(self.fc6(x).relu_())
        x = self.dropout(self.fc7(x).relu_())
        gamma: Tensor = self.fc8(x).flatten(1)
        return gamma


class SpatialModulator(nn.Module):
    """Turns the pooled guidance map of the previous mask into bias maps, one branch a trunk stage."""

    def __init__(self, branches: Mapping[str, int], halvings: Mapping[str, int], momentum: float = 0.01) -> None:
        """Make the branches.

        Args:
            branches: stage name -> number of bias channels of all its modulated layers together.
            halvings: stage name -> how often the guidance map is halved for it.
            momentum: torch's BN momentum; the official decay is 0.99.
        """
        super().__init__()
        self.halvings = dict(halvings)
        self.branches = nn.ModuleDict(
            {stage: ConvNorm(1, channels, 1, momentum=momentum) for stage, channels in branches.items()}
        )

    def forward(self, guide: Tensor) -> dict[str, BiasMaps]:
        """Spatial guide [K, 1, H, W] in 0..1 -> beta of each stage, never negative."""
        pooled = [guide]
        for _ in range(max(self.halvings.values())):
            pooled.append(avg_pool_same(pooled[-1]))
        return {stage: _bias_maps(branch, pooled[self.halvings[stage]]) for stage, branch in self.branches.items()}


def _bias_maps(branch: nn.Module, pooled: Tensor) -> BiasMaps:
    assert isinstance(branch, ConvNorm)
    if branch.norm.training:  # Batch statistics need all maps at once.
        maps = F.relu(branch(pooled))
        return lambda start, stop: maps[:, start:stop]
    return partial(render, pooled, *fold(branch))


def render(pooled: Tensor, scale: Tensor, shift: Tensor, start: int, stop: int) -> Tensor:
    """relu(scale m + shift) for channels start..stop, [K, stop - start, h, w] in channels-last layout.

    Args:
        pooled: m, the guidance map at the stage's resolution, [K, 1, h, w].
        scale: [C].
        shift: [C].
        start: first channel.
        stop: channel after the last one.
    """
    cells = pooled.permute(0, 2, 3, 1)
    return torch.addcmul(shift[start:stop], cells, scale[start:stop]).relu_().permute(0, 3, 1, 2)


def fold(branch: ConvNorm) -> tuple[Tensor, Tensor]:
    """The 1x1 convolution from one channel and its stored statistics as one affine, each [C].

    relu(g (w m - mean) / sqrt(var + eps) + b) = relu(scale m + shift).
    """
    norm = branch.norm
    assert norm.running_mean is not None
    assert norm.running_var is not None
    inverse = norm.weight / (norm.running_var + norm.eps).sqrt()
    scale = inverse * branch.conv.weight.flatten()
    return scale, norm.bias - inverse * norm.running_mean
