"""The published settings of training (specification, section 9)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from unsup_fg.settings import INPUT_SIZES, Architecture, NetworkName
from vos_shared.errors import UserError
from vos_shared.options import require_numbers


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of a training; those that are the same for most networks have the published values as defaults.

    Attributes:
        steps: number of steps of the training.
        batch: records per step and process.
        learning_rate: learning rate of Adam in TensorFlow's form.
        decay: decrease the learning rate linearly to zero; as published it is constant.
        norm_momentum: share of a batch in the moving averages of batch norms. Short runs need more than the published
            0.01, else the averages lag behind the weights.
        resized: side to which records are resized before the crop, for the published size of the input; smaller inputs
            get them smaller in proportion. Of EvalSeg-Net, which sees no crops, 128.
        save_steps: steps between two saves.
        seed: seed of crops, order and initial values.
    """

    steps: int
    batch: int = 16
    learning_rate: float = 1e-3
    decay: bool = False
    norm_momentum: float = 0.01
    resized: int = 310
    save_steps: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        require_numbers(self, "unsup-fg", "steps", "batch", "save_steps", least=1)
        require_numbers(self, "unsup-fg", "learning_rate", above=0, below=1)
        if not 0 < self.norm_momentum <= 1:
            raise UserError(f"unsup-fg: --norm-momentum is {self.norm_momentum}; give a share above 0, up to 1")

    def resized_for(self, architecture: Architecture) -> int:
        """Side in pixels to which records are resized for a network."""
        return round(self.resized * architecture.input_size / INPUT_SIZES[architecture.network])

    def rate(self, step: int) -> float:
        """Compute the learning rate of a step; steps count from 0."""
        return self.learning_rate * (1 - step / self.steps) if self.decay else self.learning_rate


PUBLISHED: Final[dict[NetworkName, TrainingSettings]] = {
    "lowres": TrainingSettings(steps=1_000_000, batch=32, resized=160, save_steps=50_000),
    "basic-unet": TrainingSettings(steps=10_000),
    "dense-unet": TrainingSettings(steps=100_000),
    "dilate-unet": TrainingSettings(steps=100_000),
    "evalseg": TrainingSettings(steps=20_000, learning_rate=1e-4, resized=128),
}
"""The steps of EvalSeg-Net are ours, as none are published. LowRes-Net's schedule costs a hundred times as much as that
of any other student; a tenth of it is a start."""
