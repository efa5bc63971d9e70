"""Settings of training, apart from all code that needs torch so that command lines can show them at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from vos_shared.errors import UserError

OFFICIAL_SIZE: Final = (480, 854)
"""Height and width of the frames that learning rates are for: losses are sums over pixels."""


@dataclass(frozen=True)
class SolverSettings:
    """Stochastic gradient descent as in Caffe; the defaults are the released solver files.

    Attributes:
        steps: of the optimiser, all together.
        batch_size: frames a step (and a process).
        learning_rate: for frames of `OFFICIAL_SIZE`; it grows as frames get smaller, since losses are sums over pixels.
            Biases of the head learn twice as fast.
        halve_every: steps after which the rate is halved; None is never.
        momentum: of the gradient.
        weight_decay: of all weights but the biases of the head.
        save_steps: distance of saves.
        seed: of everything random.
    """

    steps: int = 30_000
    batch_size: int = 1
    learning_rate: float = 1e-10
    halve_every: int | None = None
    momentum: float = 0.99
    weight_decay: float = 5e-4
    save_steps: int = 3000
    seed: int = 1337

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("batch_size", 1), ("save_steps", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise UserError(f"spn-instances: {_option(name)} is {getattr(self, name)}; it must be at least {least}")
        if self.seed >= 2**63:
            raise UserError(f"spn-instances: --seed is {self.seed}; it must be less than {2**63}")
        if self.halve_every is not None and self.halve_every < 1:
            raise UserError(f"spn-instances: --halve-every is {self.halve_every}; it must be at least 1")
        if not 0 < self.learning_rate < math.inf:
            raise UserError(f"spn-instances: --learning-rate is {self.learning_rate}; it must be a number above 0")
        if not 0 <= self.momentum < 1:
            raise UserError(f"spn-instances: --momentum is {self.momentum}; it must be from 0 to 1, without 1")
        if not 0 <= self.weight_decay < math.inf:
            raise UserError(f"spn-instances: --weight-decay is {self.weight_decay}; it must be a number, 0 or more")

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        return self.learning_rate * 0.5 ** (step // self.halve_every if self.halve_every else 0)


CODE: Final = SolverSettings()
"""The released solver files, the same for all stages."""
PAPER_PARENT: Final = SolverSettings(steps=100_000, learning_rate=1e-8)
"""What the paper says of the generic model."""
PAPER_INSTANCE: Final = SolverSettings(learning_rate=1e-8, halve_every=10_000)
"""What the paper says of the instance models."""


@dataclass(frozen=True)
class SampleSettings:
    """How frames become samples (specification, section 4); the defaults are the released constants.

    Attributes:
        size: height and width of the samples; None is the frame's own.
        scale: a sample is scaled by up to 1 + this or down to 1 - this ..
        rotation: .. turned by up to so many degrees, either way ..
        shift: .. and moved by up to this part of its sides.
        rare: one sample of so many plus one is not augmented.
        compat: repeat what the released code does: labels are cropped at another place than their images, images are
            resampled by nearest neighbour, and rare samples are stretched to the full range of a byte.
    """

    size: tuple[int, int] | None = OFFICIAL_SIZE
    scale: float = 0.05
    rotation: float = 5.0
    shift: float = 0.1
    rare: int = 3000
    compat: bool = False

    def __post_init__(self) -> None:
        if self.size is not None and min(self.size) < 16:
            raise UserError(f"spn-instances: --size is {self.size}; samples need at least 16 pixels")
        if not 0 <= self.scale < 0.9 or not 0 <= self.shift < 1:
            raise UserError("spn-instances: --scale must be 0 or more and below 0.9, --shift below 1")
        if not 0 <= self.rotation <= 180 or self.rare < 0:
            raise UserError("spn-instances: --rotation must be 0 to 180, --rare 0 or more")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


@dataclass(frozen=True)
class InferenceSettings:
    """Which stages run on a video, and with what; by default all do."""

    shorter_side: int | None = None
    """Length in pixels that the shorter side is scaled to for the foreground and object nets; by default what the
    weights ask for, else the frame's own."""
    foreground: bool = True
    """Keep objects inside the foreground net's mask."""
    spn: bool = True
    """Refine the masks of the objects by spatial propagation."""
    craf: bool = True
    """Filter connected regions; else each pixel goes to the strongest map of at least 0.5."""
    craf_rule: Literal["demo", "paper"] = "demo"
    """The filter as in the released demo, or as the paper describes it."""
    spn_weights: Path | None = None
    """The refinement network: a file of ours or a .caffemodel; by default the one that comes with the package."""
    networks: Path | None = None
    """Folder that train object, and perhaps train foreground, have filled for these videos: use those networks."""
    intermediate: Path | None = None
    """Also write the maps of the stages as 8-bit PNGs in the official layouts: FOLDER/fgbg/<video>/<frame>.png, and
    <frame>_<object>.png in FOLDER/perobj/<video>/ and FOLDER/spn/<video>/."""

    def __post_init__(self) -> None:
        if self.shorter_side is not None and self.shorter_side < 16:
            raise UserError(f"spn-instances: --shorter-side is {self.shorter_side}; it must be at least 16")


@dataclass(frozen=True)
class OnlineSettings:
    """Fine-tuning on the first frame before a video is segmented; the solver is the released one but for its length.

    Every object has a network of its own until its video ends, and so has the foreground.
    """

    steps: int = 30_000
    """Steps of one sample each (released: 30,000, which takes hours on a GPU; a few hundred with a higher rate is a
    beginning)."""
    learning_rate: float = 1e-10
    """For 480x854 frames; it is larger in proportion for smaller ones."""
    momentum: float = 0.99
    """Of the gradient."""
    tune_foreground: bool = True
    """Also fine-tune the foreground net; else it stays the parent."""
    fast: bool = False
    """Learn the head alone, on features that the frozen trunk computes once for all objects."""
    fast_samples: int = 16
    """fast: number of augmented first frames whose features are kept in memory."""
    models: Path | None = None
    """Keep the fine-tuned networks as FOLDER/<video>/<name>-<origin>.safetensors; origin stands for frames, masks,
    weights and settings, and what was made from the same is not made again."""

    def __post_init__(self) -> None:
        SolverSettings(self.steps, learning_rate=self.learning_rate, momentum=self.momentum)
        if self.fast_samples < 1:
            raise UserError(f"spn-instances: --fast-samples is {self.fast_samples}; it must be at least 1")


@dataclass(frozen=True)
class RefinementSettings:
    """Training of the refinement network; the defaults are caffe-spn's, with the crops of the paper's two classes.

    Attributes:
        steps: of the optimiser, all together.
        batch_size: crops a step (and a process).
        learning_rate: of the first step; it falls as (1 - step / steps) ** 0.5. VGG and the first layer of the mask
            learn a tenth of it, biases twice as fast.
        momentum: of the gradient.
        weight_decay: of the weights.
        clip: largest norm of the gradient.
        crop: side of the crops.
        save_steps: distance of saves.
        seed: of everything random.
    """

    steps: int = 60_001
    batch_size: int = 40
    learning_rate: float = 1e-4
    momentum: float = 0.9
    weight_decay: float = 5e-3
    clip: float = 1000.0
    crop: int = 256
    save_steps: int = 2000
    seed: int = 1337

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("batch_size", 1), ("save_steps", 1), ("seed", 0), ("crop", 32)):
            if getattr(self, name) < least:
                raise UserError(f"spn-instances: {_option(name)} is {getattr(self, name)}; it must be at least {least}")
        if self.crop % 32:
            raise UserError(f"spn-instances: --crop is {self.crop}; it must be a multiple of 32")
        for name in ("learning_rate", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"spn-instances: {_option(name)} is {getattr(self, name)}; it must be above 0")

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        return self.learning_rate * math.sqrt(1 - step / self.steps)
