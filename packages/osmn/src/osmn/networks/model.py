"""The whole network: visual modulator, spatial modulator and segmentation network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from osmn.networks import lite
from osmn.networks.modulators import BiasMaps, SpatialModulator, VisualModulator
from osmn.networks.segmentation import DeepLabNet, Modulation, OSVOSNet
from osmn.networks.vgg import STAGES, layer_names
from vos_shared.layers.upsampling import BilinearUpsampling, bilinear_kernel

BaseModel = Literal["osvos", "deeplab", "masktrack", "lite"]


@dataclass(frozen=True)
class Architecture:
    """Which network; the defaults are the paper's.

    Attributes:
        base_model: family of the segmentation trunk.
        mod_early_conv: also modulate conv1 and conv2.
        visual: with the visual modulator.
        spatial: with the spatial modulator.
        head_width: channels before lite's modulation heads; with the official 2048 they are a third of the weights.
    """

    base_model: BaseModel = "osvos"
    mod_early_conv: bool = False
    visual: bool = True
    spatial: bool = True
    head_width: int = 2048

    @property
    def modulated(self) -> dict[str, int]:
        """Modulated layers in network order and their channels."""
        if self.base_model == "lite":
            return dict(lite.MODULATED)
        stages = list(STAGES)[0 if self.mod_early_conv else 2 :]
        return {
            layer: width for stage in stages for layer, width in zip(layer_names(stage), STAGES[stage], strict=True)
        }

    @property
    def branches(self) -> dict[str, int]:
        """Branches of the spatial modulator and their channels."""
        channels: dict[str, int] = {}
        for layer, width in self.modulated.items():
            stage = layer.partition("_")[0]
            channels[stage] = channels.get(stage, 0) + width
        return channels

    @property
    def halvings(self) -> dict[str, int]:
        """Number of times that the spatial guide is halved for each branch."""
        if self.base_model == "lite":
            return dict(zip(lite.MODULATED, (2, 3, 4, 5), strict=True))
        last = 3 if self.base_model == "deeplab" else 4  # deeplab's conv5 stays at stride 8
        return {stage: min(level, last) for level, stage in enumerate(STAGES) if stage in self.branches}


VARIANTS: dict[str, Architecture] = {
    "osvos": Architecture(),
    "mod_early_conv": Architecture(mod_early_conv=True),
    "no_visual": Architecture(visual=False),
    "no_spatial": Architecture(spatial=False),
    "deeplab": Architecture("deeplab"),
    "masktrack": Architecture("masktrack", spatial=False),
    "lite": Architecture("lite"),
}


class OSMN(nn.Module):
    """One-shot modulation network (Yang et al., CVPR 2018)."""

    def __init__(self, architecture: Architecture | None = None) -> None:
        super().__init__()
        self.architecture = architecture or Architecture()
        self.modulator = self._visual_modulator()
        self.modulator_sp = self._spatial_modulator()
        self.seg = self._segmentation_network()

    @classmethod
    def unfilled(cls, architecture: Architecture | None = None) -> OSMN:
        """A network without start values, to be filled from a state dict: drawing 165 million numbers takes seconds."""
        with torch.device("meta"):
            model = cls(architecture)
        model = model.to_empty(device="cpu")
        for module in model.modules():
            if isinstance(module, BilinearUpsampling):  # Frozen, so in no state dict.
                module.kernel.copy_(bilinear_kernel(2 * module.stride))
            elif isinstance(module, nn.BatchNorm2d):  # Its counter of batches is in no official checkpoint.
                module.reset_running_stats()
        return model

    def _visual_modulator(self) -> nn.Module | None:
        if not self.architecture.visual:
            return None
        if self.architecture.base_model == "lite":
            return lite.LiteVisualModulator(self.architecture.head_width)
        return VisualModulator(sum(self.architecture.modulated.values()))

    def _spatial_modulator(self) -> SpatialModulator | None:
        architecture = self.architecture
        if not architecture.spatial or architecture.base_model == "masktrack":
            return None
        return SpatialModulator(architecture.branches, architecture.halvings)

    def _segmentation_network(self) -> nn.Module:
        if self.architecture.base_model == "osvos":
            return OSVOSNet()
        if self.architecture.base_model == "lite":
            return lite.LiteNet()
        return DeepLabNet(masktrack=self.architecture.base_model == "masktrack")

    def visual_modulation(self, visual_guide: Tensor) -> Tensor | None:
        """Visual guide [K, 3, 224, 224] -> gamma [K, C], computed once per object; None without visual modulator."""
        return None if self.modulator is None else self.modulator(visual_guide)

    def forward(
        self,
        image: Tensor,
        spatial_guide: Tensor,
        gamma: Tensor | None,
        aligned_size: tuple[int, int] | None = None,
    ) -> Tensor:
        """Segment one frame for K objects, or K frames with one object each.

        Args:
            image: normalised BGR [1 or K, 3, H, W].
            spatial_guide: [K, 1, H, W].
            gamma: from `visual_modulation`, [K, C].
            aligned_size: masktrack: (height, width) that its input is padded to with zeros.

        Returns:
            Logits [K, 1, H, W].
        """
        betas = {} if self.modulator_sp is None else self.modulator_sp(spatial_guide)
        modulation = self._modulation(gamma, betas)
        if self.architecture.base_model == "masktrack":
            return self._masktrack(image, spatial_guide, modulation, aligned_size)
        logits: Tensor = self.seg(image, modulation)
        return logits.expand(len(spatial_guide), -1, -1, -1)

    def _masktrack(
        self, image: Tensor, spatial_guide: Tensor, modulation: Modulation, aligned_size: tuple[int, int] | None
    ) -> Tensor:
        stacked = torch.cat([spatial_guide, image.expand(len(spatial_guide), -1, -1, -1)], dim=1)
        height, width = image.shape[-2:]
        full_height, full_width = aligned_size or (height, width)
        top, left = (full_height - height) // 2, (full_width - width) // 2
        padding = (left, full_width - width - left, top, full_height - height - top)
        logits: Tensor = self.seg(F.pad(stacked, padding), modulation)
        return logits[..., top : top + height, left : left + width]

    def _modulation(self, gamma: Tensor | None, betas: dict[str, BiasMaps]) -> Modulation:
        layers = self.architecture.modulated
        gammas = {} if gamma is None else dict(zip(layers, gamma.split(list(layers.values()), 1), strict=True))
        maps: dict[str, Callable[[], Tensor]] = {}
        for stage, beta in betas.items():
            start = 0
            for layer, width in layers.items():
                if layer.partition("_")[0] == stage:
                    maps[layer] = partial(beta, start, start + width)
                    start += width
        return Modulation(gammas, maps)
