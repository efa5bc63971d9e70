"""Segmentation networks on the VGG16 trunk: osvos (hypercolumns), deeplab and masktrack (atrous pyramid)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from osmn.networks.layers import modulate, side_score
from osmn.networks.vgg import VGGTrunk
from vos_shared.layers.tensorflow import max_pool_same
from vos_shared.layers.upsampling import BilinearUpsampling

SIDE_CHANNELS = 16
ATROUS_RATES = (6, 12, 18, 24)


@dataclass(frozen=True)
class Modulation:
    """The modulators' output for each layer of the trunk.

    Attributes:
        gammas: layer name -> scales [K, C].
        betas: layer name -> what makes its bias maps [K, C, h, w].
    """

    gammas: Mapping[str, Tensor] = field(default_factory=dict)
    betas: Mapping[str, Callable[[], Tensor]] = field(default_factory=dict)

    def __call__(self, layer: str, x: Tensor) -> Tensor:
        """Modulate the ReLU output of a layer; other layers are returned unchanged."""
        beta = self.betas.get(layer)
        return modulate(x, self.gammas.get(layer), None if beta is None else beta())


def _run_stage(stage: nn.Sequential, x: Tensor, modulation: Modulation) -> Tensor:
    for name, convolution in stage.named_children():
        x = modulation(name, convolution(x).relu_())
    return x


class OSVOSNet(VGGTrunk):
    """VGG16 trunk with hypercolumn fusion, one logit a pixel (specification, section 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv2_2_16 = nn.Conv2d(128, SIDE_CHANNELS, 3, padding=1)
        self.conv3_3_16 = nn.Conv2d(256, SIDE_CHANNELS, 3, padding=1)
        self.conv4_3_16 = nn.Conv2d(512, SIDE_CHANNELS, 3, padding=1)
        self.conv5_3_16 = nn.Conv2d(512, SIDE_CHANNELS, 3, padding=1)
        self.upsample = nn.ModuleList(BilinearUpsampling(2**level) for level in range(1, 5))
        self.upscore_fuse = nn.Conv2d(4 * SIDE_CHANNELS, 1, 1)

    def forward(self, image: Tensor, modulation: Modulation) -> Tensor:
        """Image [B, 3, H, W] -> logits [K, 1, H, W]; B may be 1 when K objects of one frame are modulated.

        Layers before the first modulated one then run once for all objects.
        """
        x = _run_stage(self.conv1, image, modulation)
        logits: list[Tensor] = []
        sides = (self.conv2_2_16, self.conv3_3_16, self.conv4_3_16, self.conv5_3_16)
        fuse = self.upscore_fuse.weight.split(SIDE_CHANNELS, dim=1)
        for stage, side, part, upsample in zip(self.stages[1:], sides, fuse, self.upsample, strict=True):
            x = _run_stage(stage, max_pool_same(x), modulation)
            logits.append(upsample(side_score(x, side, part), image.shape[-2:]))
        assert self.upscore_fuse.bias is not None
        return logits[0] + logits[1] + logits[2] + logits[3] + self.upscore_fuse.bias


class AtrousBranch(nn.Module):
    """fc6, fc7 and fc8 as convolutions, the first dilated."""

    def __init__(self, rate: int) -> None:
        super().__init__()
        self.fc6 = nn.Conv2d(512, 1024, 3, padding=rate, dilation=rate)
        self.fc7 = nn.Conv2d(1024, 1024, 1)
        self.fc8 = nn.Conv2d(1024, 1, 1)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        """[K, 512, h, w] -> [K, 1, h, w]."""
        x = self.dropout(F.relu(self.fc6(x)))
        x = self.dropout(F.relu(self.fc7(x)))
        logits: Tensor = self.fc8(x)
        return logits


class DeepLabNet(VGGTrunk):
    """VGG16 trunk at stride 8 with an atrous pyramid; `masktrack` reads the spatial guide as a fourth input channel."""

    def __init__(self, *, masktrack: bool = False) -> None:
        super().__init__(inputs=4 if masktrack else 3, dilation5=2)
        self.pool_kernel = 3 if masktrack else 2
        self.branches = nn.ModuleList(AtrousBranch(rate) for rate in ATROUS_RATES)
        self.upsample = BilinearUpsampling(8)

    def forward(self, image: Tensor, modulation: Modulation) -> Tensor:
        """Image [B, 3, H, W] (masktrack: [K, 4, H, W], guide first) -> logits [K, 1, H, W]."""
        x = _run_stage(self.conv1, image, modulation)
        for stage in self.stages[1:]:
            x = max_pool_same(x, self.pool_kernel, 1 if stage is self.conv5 else 2)
            x = _run_stage(stage, x, modulation)
        x = max_pool_same(x, 3, 1)
        pyramid = torch.stack([branch(x) for branch in self.branches]).sum(0)
        logits: Tensor = self.upsample(pyramid, image.shape[-2:])
        return logits
