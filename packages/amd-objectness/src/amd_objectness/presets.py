"""Settings of training, with the values of the released configuration."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from amd_objectness.settings import STRIDE
from vos_shared.errors import UserError
from vos_shared.images import MAX_SIDE
from vos_shared.options import require_numbers


@dataclass(frozen=True)
class Sampling:
    """How two frames of a video become a training pair."""

    gap: int = 1
    """Largest distance between the two frames of a pair, in frames; drawn uniformly from 1 to this."""
    shorter_side: int = 400
    """Length in pixels that the shorter side of frames is scaled to; --scale multiplies it."""
    scale: tuple[float, float] = (0.96, 1.0)
    """Range of the factor of the frames' size, drawn for each pair."""
    crop: int = 384
    """Side of the random square that is cut out of both frames."""
    shift: int = 0
    """Largest displacement in pixels, along each axis, of the second crop from the first one, as if the camera had
    moved, so that the motion network learns early that frames move. Not in the release."""
    flip: bool = False
    """Mirror half of the pairs. Not in the release, although the paper is said to mirror them."""
    colour: float = 0.0
    """Change brightness, contrast and saturation of both frames by factors from 1 - COLOUR to 1 + COLOUR. Not in the
    release."""

    def __post_init__(self) -> None:
        low, high = self.scale
        if not 0 < low <= high < math.inf:
            raise UserError(f"training: --scale {low} {high}; give two numbers above 0, the smaller one first")
        for name, side in (("--crop", self.crop), ("--shorter-side", self.shorter_side)):
            if not STRIDE <= side <= MAX_SIDE:
                raise UserError(f"training: {name} is {side}; give {STRIDE} to {MAX_SIDE} pixels")
        if int(self.shorter_side * low) < self.crop:
            raise UserError(
                f"training: --shorter-side {self.shorter_side} times {low} is less than --crop {self.crop}; frames "
                "must hold the crop"
            )
        require_numbers(self, "training", "gap", least=1)
        require_numbers(self, "training", "colour", least=0, below=1)
        require_numbers(self, "training", "shift", least=0, below=self.crop)


@dataclass(frozen=True)
class Optimisation:
    """Adam, with weight decay as an L2 term; the learning rate falls as (1 - step / steps) ** power."""

    lr: float = 1e-4
    """Learning rate of the first step."""
    min_lr: float = 1e-6
    """Learning rate of the last step."""
    power: float = 0.9
    """Exponent with which the learning rate falls."""
    warm_up: int = 0
    """First steps, in which the learning rate rises from zero. Not in the release."""
    weight_decay: float = 1e-6
    """Weight decay of all parameters."""

    def __post_init__(self) -> None:
        if not (0 <= self.min_lr <= self.lr < math.inf and self.lr > 0):
            raise UserError(f"training: --lr {self.lr} --min-lr {self.min_lr}; give 0 <= min-lr <= lr, lr above 0")
        require_numbers(self, "training", "power", "weight_decay", "warm_up", least=0)

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of a step, counted from 0, of a run of so many steps."""
        from vos_shared.training.optimisers import power_decay  # Imports torch.

        rate = (self.lr - self.min_lr) * power_decay(step, steps, self.power) + self.min_lr
        return rate * min((step + 1) / self.warm_up, 1.0) if self.warm_up else rate


@dataclass(frozen=True)
class TrainingSettings:
    """Everything that decides what a training run computes; the defaults are the released configuration's."""

    batch: int = 2
    """Pairs a step, for each process; the release has 2 for each GPU."""
    steps: int = 100_000
    """Steps of the run. Ours: the released configuration has 50, for a demonstration."""
    flow_steps: int = 0
    """First steps, in which only the motion network learns, with a flow for each pixel instead of each segment. Not in
    the release."""
    sync_bn: bool = True
    """Share the batch statistics of the batch norms among all processes."""
    picture_steps: int = 500
    """Number of steps between two pictures in TensorBoard."""
    seed: int = 0
    """Seed of the start values, the order of the videos, the pairs and dropout."""
    sampling: Sampling = Sampling()
    optimisation: Optimisation = Optimisation()

    def __post_init__(self) -> None:
        require_numbers(self, "training", "batch", "steps", "picture_steps", least=1)
        require_numbers(self, "training", "seed", "flow_steps", least=0)


RELEASED: Final = TrainingSettings()
"""As released."""


@dataclass(frozen=True)
class SemanticSettings:
    """Settings of fine-tuning on VOC 2012. They are a stand-in, because the release holds none: they follow what is
    recalled of MoCo's FCN, with the "poly" schedule of the released training.
    """

    batch: int = 16
    """Images a step, for each process."""
    steps: int = 30000
    """Steps of the run."""
    learning_rate: float = 0.003
    """Learning rate of the first step; it falls as (1 - step / steps) ** power."""
    power: float = 0.9
    """Exponent with which the learning rate falls."""
    momentum: float = 0.9
    """Momentum of SGD."""
    weight_decay: float = 1e-4
    """Weight decay, an L2 term."""
    crop: int = 513
    """Side of the random square that is cut out of an image; smaller images are padded, and the padding is void."""
    scale: tuple[float, float] = (0.5, 2.0)
    """Range of the factor by which an image is scaled first."""
    seed: int = 0
    """Seed of the head's start values, the order of the images and the crops."""

    def __post_init__(self) -> None:
        low, high = self.scale
        if not 0 < low <= high < math.inf:
            raise UserError(f"training: --scale {low} {high}; give two numbers above 0, the smaller one first")
        if not 2 * STRIDE < self.crop <= MAX_SIDE:
            raise UserError(f"training: --crop is {self.crop}; give {2 * STRIDE + 1} to {MAX_SIDE} pixels")
        require_numbers(self, "training", "batch", "steps", least=1)
        require_numbers(self, "training", "learning_rate", above=0)
        require_numbers(self, "training", "power", "weight_decay", least=0)
        require_numbers(self, "training", "momentum", least=0, below=1)
        require_numbers(self, "training", "seed", least=0)
