"""Which networks there are, and the published numbers of each (specification, sections 4 to 9)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

from vos_shared.errors import UserError

NetworkName = Literal["lowres", "basic-unet", "dense-unet", "dilate-unet", "evalseg"]
StudentName = Literal["lowres", "basic-unet", "dense-unet", "dilate-unet"]
STUDENTS: Final[tuple[StudentName, ...]] = get_args(StudentName)

INPUT_SIZES: Final = {"lowres": 128, "basic-unet": 256, "dense-unet": 256, "dilate-unet": 256, "evalseg": 128}
"""Side of the square that each network sees."""
OUTPUT_SIZES: Final = {"lowres": 32, "basic-unet": 256, "dense-unet": 256, "dilate-unet": 256}
"""Side of the map that each student gives."""


@dataclass(frozen=True)
class Architecture:
    """A network of the paper, or a narrower one.

    Attributes:
        network: which.
        width: factor of its numbers of channels; 1 as published.
        fixed: without the two faults of the released code, on which published weights depend: the dilated kernels of
            DilateU-Net are trained, and the block norms of DenseU-Net use moving averages at inference.
    """

    network: NetworkName
    width: float = 1.0
    fixed: bool = False

    def __post_init__(self) -> None:
        if self.network not in get_args(NetworkName):
            raise UserError(f"unsup-fg: no network {self.network!r}; there is {', '.join(get_args(NetworkName))}")
        if not 1 / 64 <= self.width <= 4:
            raise UserError(f"unsup-fg: a network of width {self.width}; choose 1/64 to 4, 1 as published")

    def channels(self, published: int) -> int:
        """Channels in place of a published number."""
        return max(1, round(published * self.width))

    @property
    def input_size(self) -> int:
        """Side of the square that the network sees."""
        return INPUT_SIZES[self.network]


@dataclass(frozen=True)
class StudentSettings:
    """What is done with a student's map.

    Attributes:
        threshold: soft mask at and above which a pixel is object 1.
        stretch: stretch each map from its least to its greatest value, as the official program does; every frame has a
            foreground then, and how sure the student is gets lost.
    """

    threshold: float = 0.5
    stretch: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise UserError(f"unsup-fg: threshold {self.threshold}; choose above 0, up to 1")
