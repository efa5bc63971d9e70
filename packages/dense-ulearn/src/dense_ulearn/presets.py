"""Training settings: the four published configurations and one for any other videos.

Sources of all values: the configuration files of the published program, given here as differences from its defaults.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from vos_shared.errors import UserError
from vos_shared.options import require_numbers


@dataclass(frozen=True)
class Sampling:
    """Which frames make a clip.

    Attributes:
        frames: T, frames of a clip.
        gap: distance between consecutive frames of a clip, if the video is long enough.
        ordered: keep the order of time (Kinetics); otherwise frames are permuted, so that any of them can be the anchor
            frame.
    """

    frames: int = 5
    gap: int = 5
    ordered: bool = False


@dataclass(frozen=True)
class Augmentation:
    """How frames become the two views.

    Attributes:
        crop: side of the square crop in pixels.
        shorter_side: bounds of the length that the shorter side is scaled to, in pixels; the upper one is excluded.
        random_crop: crop anywhere rather than in the centre.
        zoom: bounds of the scale of the second view; values below 1 zoom in.
    """

    crop: int = 256
    shorter_side: tuple[int, int] = (256, 320)
    random_crop: bool = True
    zoom: tuple[float, float] = (0.5, 1.0)

    def check(self) -> None:
        """Refuse settings that cannot be carried out.

        Raises:
            UserError: naming the setting.
        """
        low, high = self.shorter_side
        if not 0 < self.crop <= low <= high:
            raise UserError(
                f"training: the shorter side is scaled to {low}..{high} pixels, less than the crop of "
                f"{self.crop} or falling; lower --crop or raise --shorter-side"
            )
        if not 0 < self.zoom[0] <= self.zoom[1] <= 1:
            raise UserError(f"training: zoom bounds {self.zoom} must rise and lie in 0..1 (the view zooms in only)")


@dataclass(frozen=True)
class ObjectiveSettings:
    """Settings of the objective; the defaults are those of all four published configurations.

    Attributes:
        grid: anchors on a `grid` x `grid` pattern in the first frame of every clip.
        reference_grid: cells on a `reference_grid` x `reference_grid` pattern for the cross-view loss.
        temperature: divides all similarities; the same value as at test time.
        cross_view_weight: weight of the cross-view loss in the sum.
    """

    grid: int = 8
    reference_grid: int = 4
    temperature: float = 0.05
    cross_view_weight: float = 0.1


@dataclass(frozen=True)
class Optimisation:
    """Optimiser and learning rate; biases learn at twice the rate and do not decay.

    Attributes:
        optimiser: Adam (betas `beta1` and 0.999) or SGD (with `momentum`); weight decay is an L2 term of both.
        lr: learning rate of the weights, BatchNorm's among them.
        weight_decay: of the weights.
        schedule: the rate stays (`constant`), falls to `gamma` of itself every `step_epochs` (`step`), or falls as
            (1 - epoch / epochs) ** `power` (`linear`).
        step_epochs: epochs between two steps.
        gamma: factor of a step.
        power: of the linear schedule.
        beta1: of Adam.
        momentum: of SGD.
    """

    optimiser: Literal["adam", "sgd"] = "adam"
    lr: float = 3e-4
    weight_decay: float = 1e-5
    schedule: Literal["constant", "step", "linear"] = "constant"
    step_epochs: int = 5
    gamma: float = 0.1
    power: float = 1.0
    beta1: float = 0.5
    momentum: float = 0.9

    def rate_factor(self, epoch: int, epochs: int) -> float:
        """The learning rate of `epoch` relative to `lr`."""
        if self.schedule == "step":
            return float(self.gamma ** (epoch // self.step_epochs))
        if self.schedule == "linear":
            from vos_shared.training.optimisers import power_decay  # Not at the top: it imports torch.

            return power_decay(epoch, epochs, self.power)
        return 1.0


@dataclass(frozen=True)
class TrainingSettings:
    """All settings that decide what a training run computes.

    Attributes:
        batch: clips per step and process.
        epochs: number of the last epoch. Epochs count from 0 and the last one is run, so there is one more than this.
        clips_per_video: clips that an epoch takes of each video.
        seed: of weights, order, clips, augmentation and anchors.
        block_bn: run the gradient-free pass of the regularising view with BatchNorm's running statistics. By default it
            uses the batch's own and updates the running ones, as the published program does.
        sync_bn: share BatchNorm statistics over processes (CUDA only).
        sampling: which frames make a clip.
        augmentation: how frames become two views.
        objective: the losses.
        optimisation: optimiser and learning rate.
        validate_epochs: epochs between two validations; epoch 0 is validated.
        picture_epochs: epochs between two sets of pictures in TensorBoard.
    """

    batch: int = 20
    epochs: int = 15
    clips_per_video: int = 1
    seed: int = 64
    block_bn: bool = False
    sync_bn: bool = False
    sampling: Sampling = field(default_factory=Sampling)
    augmentation: Augmentation = field(default_factory=Augmentation)
    objective: ObjectiveSettings = field(default_factory=ObjectiveSettings)
    optimisation: Optimisation = field(default_factory=Optimisation)
    validate_epochs: int = 1
    picture_epochs: int = 10

    def check(self) -> None:
        """Refuse settings that cannot be carried out.

        Raises:
            UserError: naming the option.
        """
        objective, optimisation = self.objective, self.optimisation
        require_numbers(self, "training", "batch", "clips_per_video", "validate_epochs", "picture_epochs", least=1)
        require_numbers(self, "training", "epochs", least=0)
        require_numbers(self, "training", "seed", least=0, below=2**63)
        require_numbers(self.sampling, "training", "frames", least=2)
        require_numbers(self.sampling, "training", "gap", least=1)
        require_numbers(objective, "training", "grid", "reference_grid", least=1)
        require_numbers(objective, "training", "temperature", above=0)
        require_numbers(objective, "training", "cross_view_weight", least=0)
        require_numbers(optimisation, "training", "lr", above=0)
        require_numbers(optimisation, "training", "weight_decay", "gamma", "power", least=0)
        require_numbers(optimisation, "training", "beta1", "momentum", least=0, below=1)
        require_numbers(optimisation, "training", "step_epochs", least=1)
        self.augmentation.check()


YTVOS = TrainingSettings(
    batch=16,
    epochs=500,
    sampling=Sampling(gap=2),
    optimisation=Optimisation("adam", 1e-4, 5e-4, "step", step_epochs=100, gamma=0.5),
    validate_epochs=10,
    picture_epochs=20,
)
OXUVA = replace(YTVOS, sampling=Sampling(gap=10))
TRACK = TrainingSettings(
    batch=16,
    epochs=250,
    sampling=Sampling(gap=10),
    augmentation=Augmentation(shorter_side=(256, 256), random_crop=False),
    optimisation=Optimisation("sgd", 1e-3, 5e-4, "step", step_epochs=20, gamma=0.9),
    validate_epochs=2,
    picture_epochs=10,
)
KINETICS = replace(
    TRACK,
    epochs=80,
    sampling=Sampling(gap=10, ordered=True),
    optimisation=replace(TRACK.optimisation, gamma=0.5),
    picture_epochs=8,
)
CUSTOM = TrainingSettings(
    batch=16,
    epochs=100,
    optimisation=Optimisation("adam", 1e-4, 5e-4),
    validate_epochs=10,
    picture_epochs=20,
)
"""Any other videos: the values of `YTVOS` at a constant rate, with the program's default gap of 5 frames."""
