"""Training settings: the published command lines, and one for folders of images (specification, section 10).

Imports no torch, so that command lines show the settings at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Final

import tyro

from osmn.settings import MIN_SIDE, require_scales
from vos_shared.errors import UserError
from vos_shared.options import require_numbers

if TYPE_CHECKING:
    from osmn.networks import Architecture

LITE_BLOCKS: Final = 13
"""Depthwise-separable blocks of lite's trunks."""


@dataclass(frozen=True)
class GuideAugmentation:
    """Ranges of the random changes of the guides; the defaults are the official ones.

    Attributes:
        crop_ratio: each side of the visual guide's box moves by up to this part of the box.
        colour: also change brightness, then contrast, by factors of 0.8 to 1.3.
        angle: rotation of the visual guide in degrees, either way.
        centre_ratio: shift of the spatial guide's centre in standard deviations, on each axis.
        std_ratio: the spatial guide's standard deviation is multiplied by 1 / (1 + r) to 1 + r.
        mask_scale: masktrack's guide: the mask is scaled by a factor in these bounds ..
        mask_shift: .. and moved by up to this part of its box, on each axis.
        keep_aspect: fit the visual guide into its square instead of stretching it.
        blank_background: show the visual modulator the object alone.
    """

    crop_ratio: float = 0.1
    colour: bool = False
    angle: float = 10.0
    centre_ratio: float = 0.2
    std_ratio: float = 0.4
    mask_scale: tuple[float, float] = (0.8, 1.2)
    mask_shift: float = 0.2
    keep_aspect: bool = False
    blank_background: bool = True

    def __post_init__(self) -> None:
        require_numbers(self, "osmn", "crop_ratio", "angle", "centre_ratio", "std_ratio", "mask_shift", least=0)
        low, high = self.mask_scale
        if not 0 < low <= high < math.inf:
            raise UserError(f"osmn: --mask-scale is {low} {high}; it takes two numbers above 0, the smaller one first")


@dataclass(frozen=True)
class TrainingSettings:
    """One training run.

    Attributes:
        steps: optimiser steps of the whole run.
        batch_size: objects per step and process.
        learning_rate: of the first part.
        drop_at: step from which the rate is a tenth; None: it stays.
        fix_bn: keep the spatial modulator's stored statistics (its scales and shifts are trained all the same).
        fix_trunk_bn: keep the stored statistics of lite's trunks.
        fix_seg: train the modulators and the fusion layer only.
        fixed_seg_blocks: lite: this many first blocks of the segmentation trunk keep their start values.
        fixed_modulator_blocks: lite: this many first blocks of the visual modulator keep their start values.
        save_steps: steps between two saves.
        seed: of everything random.
    """

    steps: int = 300_000
    batch_size: int = 8
    learning_rate: float = 1e-5
    drop_at: int | None = 200_000
    fix_bn: bool = False
    fix_trunk_bn: bool = False
    fix_seg: bool = False
    fixed_seg_blocks: int = 0
    fixed_modulator_blocks: int = 0
    save_steps: int = 1000
    seed: int = 1234

    def __post_init__(self) -> None:
        require_numbers(self, "osmn", "steps", "batch_size", "save_steps", "drop_at", least=1)
        require_numbers(self, "osmn", "seed", least=0, below=2**63)
        require_numbers(self, "osmn", "fixed_seg_blocks", "fixed_modulator_blocks", least=0, below=LITE_BLOCKS + 1)
        require_numbers(self, "osmn", "learning_rate", above=0)

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        return self.learning_rate * (0.1 if self.drop_at is not None and step >= self.drop_at else 1.0)


@dataclass(frozen=True)
class SampleSettings:
    """How examples become network input.

    Attributes:
        size: (height, width) of the frames.
        scales: factors of the size, one of them drawn for each batch.
        scale_value: factor of the normalised pixels; set by the network.
        frame_crop_ratio: still images: each side of frame and label moves by up to this part of its length.
        mask_guide: masktrack: the guide is the perturbed, dilated mask instead of a Gaussian.
        augmentation: of the guides.
    """

    size: tuple[int, int] = (480, 854)
    scales: tuple[float, ...] = (0.5, 0.8, 1.0)
    scale_value: Annotated[float, tyro.conf.Suppress] = 1.0
    frame_crop_ratio: float = 0.0
    mask_guide: Annotated[bool, tyro.conf.Suppress] = False
    augmentation: GuideAugmentation = field(default_factory=GuideAugmentation)

    def __post_init__(self) -> None:
        require_scales(self.scales)
        if min(self.size) < 16 or min(self.batch_size_of(min(self.scales))) < MIN_SIDE:
            raise UserError(
                f"osmn: frames of {self.size} at scales {self.scales} are too small for the network; "
                "give a larger --size, or larger --scales"
            )
        require_numbers(self, "osmn", "frame_crop_ratio", least=0, below=0.5)

    def batch_size_of(self, scale: float) -> tuple[int, int]:
        """(height, width) of a batch at this scale."""
        return int(self.size[0] * scale), int(self.size[1] * scale)


def single_valued(architecture: Architecture, samples: SampleSettings, settings: TrainingSettings) -> bool:
    """Whether a batch norm in training mode would see a single value per channel, which has no variance."""
    spatial = architecture.spatial and architecture.base_model != "masktrack" and not settings.fix_bn
    trunks = architecture.base_model == "lite" and not settings.fix_trunk_bn
    stride = 2 ** max(architecture.halvings.values())
    single_cell = max(samples.batch_size_of(min(samples.scales))) <= stride
    return settings.batch_size == 1 and (spatial or trunks) and single_cell


def require_trainable(architecture: Architecture, samples: SampleSettings, settings: TrainingSettings) -> None:
    """Refuse settings of another network, and frames and batches too small for batch statistics.

    Raises:
        UserError: names the options to leave out or to change.
    """
    of_lite = ("fix_trunk_bn", "fixed_seg_blocks", "fixed_modulator_blocks")
    idle = [f"--{name.replace('_', '-')}" for name in of_lite if getattr(settings, name)]
    if idle and architecture.base_model != "lite":
        raise UserError(f"osmn: {', '.join(idle)}: only lite has this option; leave it out")
    if settings.fix_seg and architecture.base_model == "lite":
        raise UserError("osmn: lite has no --fix-seg; give --fixed-seg-blocks")
    if single_valued(architecture, samples, settings):
        fixed = "--fix-bn and --fix-trunk-bn" if architecture.base_model == "lite" else "--fix-bn"
        raise UserError(
            f"osmn: frames of {samples.size} at scale {min(samples.scales)} are too small for batch norm; "
            f"give a larger --size, larger --scales, --batch-size 2, or {fixed}"
        )


COCO: Final = (TrainingSettings(), SampleSettings((400, 400), (0.8, 1.0, 1.2)))
"""Stage 1: 200,000 steps, then 100,000 at a tenth of the rate."""

DAVIS: Final = (
    TrainingSettings(steps=50_000, batch_size=4, learning_rate=1e-6, drop_at=None, fix_bn=True),
    SampleSettings((480, 854), (0.5, 0.8, 1.0)),
)
"""Stage 2, from the weights of stage 1."""

YOUTUBE_VOS: Final = (TrainingSettings(), SampleSettings((256, 448), (1.0,)))
"""YouTube-VOS from ImageNet, the same steps as stage 1."""
