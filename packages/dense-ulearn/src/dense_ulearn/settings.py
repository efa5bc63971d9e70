"""Settings of inference; imports no torch, so that command lines show them at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from vos_shared.errors import UserError
from vos_shared.images import MAX_SIDE
from vos_shared.options import require_numbers

Layer: TypeAlias = Literal["res3", "res4", "key"]
"""Outputs of the network that can be used as features."""

CHANNELS: dict[Layer, int] = {"res3": 256, "res4": 512, "key": 128}


MOST_NEIGHBOURS: Final = 10_000
"""Largest number of neighbours; memory is reserved for all of them, even on a smaller map."""
COLDEST: Final = 1e-6
"""Smallest temperature; with a smaller one similarities would not be finite."""


@dataclass(frozen=True)
class PropagationSettings:
    """Settings of the propagation; the defaults are the paper's for every data set."""

    context: int = 20
    """Number of latest frames that are searched, besides the frame that prompts the object."""
    radius: float = 12.0
    """Cells of the latest frames are searched up to this distance in cells of 8 pixels; 10000 means no limit."""
    neighbours: int = 10
    """Number of most similar cells that vote."""
    temperature: float = 0.05
    """Divides the similarities before the softmax over the neighbours."""

    def __post_init__(self) -> None:
        require_numbers(self, "dense-ulearn", "context", least=0)
        require_numbers(self, "dense-ulearn", "radius", above=0)
        require_numbers(self, "dense-ulearn", "neighbours", least=1, below=MOST_NEIGHBOURS + 1)
        require_numbers(self, "dense-ulearn", "temperature", least=COLDEST)


@dataclass(frozen=True)
class InferenceSettings(PropagationSettings):
    """Settings of the segmenter; the defaults are the paper's, except for exact_prompt."""

    layer: Layer = "res4"
    """Output of the network that is used as features."""
    input_size: int = -1
    """Shorter side in pixels that frames are resized to for the network; -1 keeps their size."""
    exact_prompt: bool = True
    """Return the prompt itself in the frame that prompts an object. The official program returns a smoothed one, scaled
    down to the feature map and up again."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layer not in CHANNELS:
            raise UserError(f"dense-ulearn has no features {self.layer!r}; choose {', '.join(CHANNELS)}")
        if self.input_size == 0 or not -1 <= self.input_size <= MAX_SIDE:
            raise UserError(
                f"--input-size is {self.input_size}; give 1 to {MAX_SIDE} pixels, or -1 to keep the size of frames"
            )
