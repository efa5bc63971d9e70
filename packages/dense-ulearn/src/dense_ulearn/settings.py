"""Settings of inference, apart from all code that needs torch so that command lines can show them at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from vos_shared.errors import UserError
from vos_shared.images import MAX_SIDE

Layer: TypeAlias = Literal["res3", "res4", "key"]
"""The outputs of the network that can serve as features."""

CHANNELS: dict[Layer, int] = {"res3": 256, "res4": 512, "key": 128}


MOST_NEIGHBOURS: Final = 10_000
"""Room is made for as many, also on a map that has fewer cells."""
COLDEST: Final = 1e-6
"""Least temperature; similarities over a smaller one would not be finite."""


@dataclass(frozen=True)
class PropagationSettings:
    """What the propagation is set to; the defaults are the paper's for every data set."""

    context: int = 20
    """Latest frames that are searched beside the frame in which an object was given."""
    radius: float = 12.0
    """Cells of the latest frames must be nearer than this; a cell is 8 pixels wide. 10000 is as good as no limit."""
    neighbours: int = 10
    """Most similar cells that vote."""
    temperature: float = 0.05
    """Divides the similarities before the softmax over the neighbours."""

    def __post_init__(self) -> None:
        positive = 0 < self.radius < math.inf and 1 <= self.neighbours <= MOST_NEIGHBOURS
        if self.context < 0 or not positive or not COLDEST <= self.temperature < math.inf:
            raise UserError(
                f"label propagation cannot use {self}: context >= 0, temperature >= {COLDEST}, all others positive and "
                f"finite, at most {MOST_NEIGHBOURS:,} neighbours"
            )


@dataclass(frozen=True)
class InferenceSettings(PropagationSettings):
    """Settings of the segmenter; the defaults are the paper's, but for the last."""

    layer: Layer = "res4"
    """Output of the network that serves as features."""
    input_size: int = -1
    """Shorter side that frames are resized to for the network; -1 leaves them as they are."""
    exact_prompt: bool = True
    """In the frame where an object is given return its mask as given. The official program smoothes it: its mask takes
    the way through the small feature map."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layer not in CHANNELS:
            raise UserError(f"dense-ulearn has no features {self.layer!r}; choose {', '.join(CHANNELS)}")
        if self.input_size == 0 or not -1 <= self.input_size <= MAX_SIDE:
            raise UserError(
                f"input size {self.input_size} is not a side length; give pixels, at most {MAX_SIDE}, or -1 for "
                "frames as they are"
            )
