"""Segmentation networks on the VGG16 trunk: osvos (hypercolumns), deeplab and masktrack (atrous pyramid)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from osmn.networks.layers import BilinearUpsampling, max_pool_same, modulate, side_score
from osmn.networks.vgg import STAGES, add_vgg_stages, layer_names

SIDE_CHANNELS = 16
ATROUS_RATES = (6, 12, 18, 24)


@dataclass(frozen=True)
class Modulation:
    """What the modulators say to the layers of the trunk.

    Attributes:
        gammas: layer name -> scales [K, C].
        betas: layer name -> what makes its bias maps [K, C, h, w].
    """

    gammas: Mapping[str, Tensor] = field(default_factory=dict)
    betas: Mapping[str, Callable[[], Tensor]] = field(default_factory=dict)

    def __call__(self, layer: str, x: Tensor) -> Tensor:
        """Modulate the ReLU output of a layer; layers without modulation pass."""
        beta = self.betas.get(layer)
        return modulate(x, self.gammas.get(layer), None if beta is None else beta())


def _run_stage(network: nn.Module, stage: str, x: Tensor, modulation: Modulation) -> Tensor:
    for name, conv in network.get_submodule(stage).named_children():
        x = modulation(name, conv(x).relu_())
    return x


class OSVOSNet(nn.Module):
    """VGG16 trunk with hypercolumn fusion, one logit a pixel (specification, section 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = add_vgg_stages(self)
        for stage in self.stages[1:]:
            self.add_module(f"{layer_names(stage)[-1]}_16", nn.Conv2d(STAGES[stage][-1], SIDE_CHANNELS, 3, padding=1))
        self.upsample = nn.ModuleList(BilinearUpsampling(2**level) for level in range(1, 5))
        self.upscore_fuse = nn.Conv2d(4 * SIDE_CHANNELS, 1, 1)

    def forward(self, image: Tensor, modulation: Modulation) -> Tensor:
        """Image [B, 3, H, W] -> logits [K, 1, H, W]; B may be 1 when K objects of one frame are modulated.

        Layers before the first modulated one then run once for all objects.
        """
        x = image
        scores: Tensor | None = None
        fuse = self.upscore_fuse.weight.split(SIDE_CHANNELS, dim=1)
        for level, stage in enumerate(self.stages):
            x = _run_stage(self, stage, x if level == 0 else max_pool_same(x), modulation)
            if level == 0:
                continue
            score = side_score(x, self.get_submodule(f"{layer_names(stage)[-1]}_16"), fuse[level - 1])
            up = self.upsample[level - 1](score, image.shape[-2:])
            scores = up if scores is None else scores + up
        assert scores is not None
        assert self.upscore_fuse.bias is not None
        return scores + self.upscore_fuse.bias


class AtrousHead(nn.Module):
    """Four parallel branches fc6-fc7-fc8 with dilations 6, 12, 18 and 24, summed; official names per branch."""

    def __init__(self, score: str) -> None:
        super().__init__()
        self.score = score
        for number, rate in enumerate(ATROUS_RATES, start=1):
            self.add_module(f"fc6_{number}", nn.Conv2d(512, 1024, 3, padding=rate, dilation=rate))
            self.add_module(f"fc7_{number}", nn.Conv2d(1024, 1024, 1))
            self.add_module(f"{score}_{number}", nn.Conv2d(1024, 1, 1))
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        """[K, 512, h, w] -> [K, 1, h, w]."""
        branches = (self._branch(number, x) for number in range(1, len(ATROUS_RATES) + 1))
        return torch.stack(list(branches)).sum(0)

    def _branch(self, number: int, x: Tensor) -> Tensor:
        x = self.dropout(F.relu(self.get_submodule(f"fc6_{number}")(x)))
        x = self.dropout(F.relu(self.get_submodule(f"fc7_{number}")(x)))
        score: Tensor = self.get_submodule(f"{self.score}_{number}")(x)
        return score


class DeepLabNet(nn.Module):
    """VGG16 trunk at stride 8 with an atrous head; `masktrack` reads the spatial guide as a fourth input channel."""

    def __init__(self, *, masktrack: bool = False) -> None:
        super().__init__()
        self.stages = add_vgg_stages(self, inputs=4 if masktrack else 3, dilated=("conv5",))
        self.pool_kernel = 3 if masktrack else 2
        self.head = AtrousHead("fc8" if masktrack else "fc8_voc12")
        self.upsample = BilinearUpsampling(8)

    def forward(self, image: Tensor, modulation: Modulation) -> Tensor:
        """Image [B, 3, H, W] (masktrack: [K, 4, H, W], guide first) -> logits [K, 1, H, W]."""
        x = image
        for level, stage in enumerate(self.stages):
            if level:
                x = max_pool_same(x, self.pool_kernel, 1 if stage == "conv5" else 2)
            x = _run_stage(self, stage, x, modulation)
        logits: Tensor = self.upsample(self.head(max_pool_same(x, 3, 1)), image.shape[-2:])
        return logits
