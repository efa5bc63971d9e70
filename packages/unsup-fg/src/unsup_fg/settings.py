"""The networks and their published sizes, and the settings of masks (specification, sections 4 to 10)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

from vos_shared.errors import UserError

NetworkName = Literal["lowres", "basic-unet", "dense-unet", "dilate-unet", "evalseg"]
StudentName = Literal["lowres", "basic-unet", "dense-unet", "dilate-unet"]
STUDENTS: Final[tuple[StudentName, ...]] = get_args(StudentName)
CandidateName = StudentName | Literal["consensus"]
"""Whose masks the second generation may learn from: a student's, or the consensus of all."""

INPUT_SIZES: Final = {"lowres": 128, "basic-unet": 256, "dense-unet": 256, "dilate-unet": 256, "evalseg": 128}
"""Side of the input of each network, in pixels."""
LOWRES_MAP: Final = 32
"""Side of the map of LowRes-Net; the maps of the other students are as large as their input."""


@dataclass(frozen=True)
class Architecture:
    """A network of the paper, or a narrower one.

    Attributes:
        network: name of the network.
        width: factor of the numbers of channels; 1 as published.
        fixed: without the two faults of the released code, on which published weights depend: the dilated kernels of
            DilateU-Net are trained, and the block norms of DenseU-Net use moving averages at inference.
        side: side of the input of a U-Net, in pixels, a multiple of 32; None as published. The input of the other two
            networks cannot be changed, because of their dense layers.
    """

    network: NetworkName
    width: float = 1.0
    fixed: bool = False
    side: int | None = None

    def __post_init__(self) -> None:
        if self.network not in get_args(NetworkName):
            raise UserError(f"unsup-fg: no network {self.network!r}; there is {', '.join(get_args(NetworkName))}")
        if not 1 / 64 <= self.width <= 4:
            raise UserError(f"unsup-fg: a network of width {self.width}; choose 1/64 to 4, 1 as published")
        if self.side is not None and not self.network.endswith("unet"):
            raise UserError(
                f"unsup-fg: {self.network} sees {INPUT_SIZES[self.network]} pixels; --input-size is for U-Nets"
            )
        if self.side is not None and (self.side % 32 or not 32 <= self.side <= 2048):
            raise UserError(f"unsup-fg: --input-size is {self.side}; give a multiple of 32, 256 as published")

    def channels(self, published: int) -> int:
        """Scale a published number of channels."""
        return max(1, round(published * self.width))

    @property
    def input_size(self) -> int:
        """Side of the input of the network, in pixels."""
        return self.side or INPUT_SIZES[self.network]

    @property
    def output_size(self) -> int:
        """Side of the map of a student, in pixels."""
        return LOWRES_MAP if self.network == "lowres" else self.input_size


@dataclass(frozen=True)
class StudentSettings:
    """How masks are made from a student's map.

    Attributes:
        threshold: pixels with at least this soft mask are object 1; by default the threshold of the weights, or 0.5.
        stretch: stretch each map from its smallest to its largest value, as the official program does; then every
            frame has a foreground, and the confidence of the student is lost.
        batch: frames that the networks see at once, for GPUs; masks stay the same but for rounding.
    """

    threshold: float | None = None
    stretch: bool = False
    batch: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.batch <= 1024:
            raise UserError(f"unsup-fg: --batch is {self.batch}; give 1 to 1024 frames")
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise UserError(f"unsup-fg: threshold {self.threshold}; choose above 0, up to 1")
