"""Settings of networks and inference, apart from all code that needs torch so that command lines show them at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from vos_shared.errors import UserError

BackboneName: TypeAlias = Literal["resnet50", "resnet18"]

SEGMENTS: Final = 5
"""Soft segments of an image, c in the paper."""
MOTION_STRIDE: Final = 64
"""Stride of the coarsest level of the motion network; sides of its input are multiples of it."""


@dataclass(frozen=True)
class Architecture:
    """What a network is built like; the defaults are those of the released code."""

    backbone: BackboneName = "resnet50"
    """Trunk of the appearance network: the paper's ResNet-50, or ResNet-18 for small machines (ours)."""
    motion_size: tuple[int, int] = (384, 640)
    """Height and width that both frames are stretched to for the motion network and the losses; multiples of 64."""

    def __post_init__(self) -> None:
        if min(self.motion_size) < MOTION_STRIDE or any(side % MOTION_STRIDE for side in self.motion_size):
            height, width = self.motion_size
            raise UserError(
                f"amd-objectness: --motion-size {height} {width}: height and width are multiples of {MOTION_STRIDE}"
            )
