"""How the networks were trained as published (specification, section 9)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from unsup_fg.settings import NetworkName
from vos_shared.errors import UserError
from vos_shared.options import require_numbers


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of a run; those that do not depend on the student have the published values as defaults.

    Attributes:
        steps: of the whole run.
        batch: records a step and process.
        learning_rate: of Adam in TensorFlow's form.
        decay: let the learning rate fall to zero in even steps; it is constant as published.
        norm_momentum: share of a batch in the moving averages of batch norms; those of short runs need more than the
            published 0.01 to follow the weights.
        resized: side to which records are resized before the crop; of EvalSeg-Net, which sees no crops, 128.
        save_steps: steps between two saves.
        seed: of crops, order and initial values.
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

    def rate(self, step: int) -> float:
        """The learning rate of a step, from 0 on."""
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
