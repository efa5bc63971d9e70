"""Settings of training and inference; imports no torch, so that command lines show them at once."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from vos_shared.errors import UserError
from vos_shared.options import require_numbers

OFFICIAL_SIZE: Final = (480, 854)
"""Height and width of the frames that learning rates of Caffe's solver are for: losses are sums over pixels."""
TrunkName = Literal["resnet", "resnet18", "mobilenet", "efficientnet-lite0"]
"""Trunks of the foreground net; the first is the official one."""
Rule = Literal["sgd", "adamw"]
"""How gradients change weights."""


@dataclass(frozen=True)
class SolverSettings:
    """Stochastic gradient descent as in Caffe; the defaults are the released solver files.

    Attributes:
        steps: Number of steps.
        batch_size: Frames a step, for each process.
        learning_rate: Learning rate for frames of `OFFICIAL_SIZE`; it grows as frames get smaller, since losses are
            sums over pixels. Biases of the head learn with twice the rate.
        halve_every: Number of steps after which the rate is halved; None never halves it.
        momentum: Momentum of the solver; of ``adamw`` the first beta.
        weight_decay: Weight decay of all weights except the biases of the head.
        save_steps: Steps between two saves.
        seed: Seed of all random draws.
        rule: ``sgd`` is Caffe's. ``adamw`` is ours, for few steps on small machines: its rate does not depend on the
            frame size and falls linearly to 0, and the trunk learns with a tenth of it.
    """

    steps: int = 30_000
    batch_size: int = 1
    learning_rate: float = 1e-10
    halve_every: int | None = None
    momentum: float = 0.99
    weight_decay: float = 5e-4
    save_steps: int = 3000
    seed: int = 1337
    rule: Rule = "sgd"

    def __post_init__(self) -> None:
        require_numbers(self, "spn-instances", "steps", "batch_size", "save_steps", "halve_every", least=1)
        require_numbers(self, "spn-instances", "seed", least=0, below=2**63)
        require_numbers(self, "spn-instances", "learning_rate", above=0)
        require_numbers(self, "spn-instances", "momentum", least=0, below=1)
        require_numbers(self, "spn-instances", "weight_decay", least=0)

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        if self.rule == "adamw":
            return self.learning_rate * (1 - step / self.steps)
        return self.learning_rate * 0.5 ** (step // self.halve_every if self.halve_every else 0)


CODE: Final = SolverSettings()
"""The released solver files, the same for all stages."""
PAPER_PARENT: Final = SolverSettings(steps=100_000, learning_rate=1e-8)
"""The paper's values for the parent net (its generic model)."""
PAPER_INSTANCE: Final = SolverSettings(learning_rate=1e-8, halve_every=10_000)
"""The paper's values for fine-tuning (its instance models)."""
SMALL: Final = SolverSettings(
    steps=4000, batch_size=4, learning_rate=1e-3, momentum=0.9, weight_decay=1e-2, save_steps=500, rule="adamw"
)
"""Ours, for a parent with a small trunk that two CPU cores train in an hour."""
SMALL_INSTANCE: Final = replace(SMALL, steps=60, batch_size=2)
"""Ours, for the fine-tuning of small networks on a first frame."""
OBJECT_STEPS: Final = 1 / 3
"""Ours: steps of an object's network that starts from the foreground's (fast fine-tuning), as a part of all steps."""


@dataclass(frozen=True)
class SampleSettings:
    """How frames become samples (specification, section 4); the defaults are the released constants.

    Attributes:
        size: Height and width of the samples; None keeps the size of the frames.
        scale: Samples are scaled by a random factor from 1 - SCALE to 1 + SCALE.
        rotation: Samples are rotated by up to this many degrees in either direction.
        shift: Samples are moved by up to this part of their sides.
        rare: One of RARE + 1 samples is not augmented.
        compat: Do as the released code: crop labels at another place than images, resample images by nearest neighbour,
            and stretch samples that are not augmented to the full range of a byte.
    """

    size: tuple[int, int] | None = OFFICIAL_SIZE
    scale: float = 0.05
    rotation: float = 5.0
    shift: float = 0.1
    rare: int = 3000
    compat: bool = False

    def __post_init__(self) -> None:
        if self.size is not None and min(self.size) < 16:
            raise UserError(f"spn-instances: --size is {self.size}; give a height and a width of at least 16")
        if not 0 <= self.scale < 0.9 or not 0 <= self.shift < 1:
            raise UserError("spn-instances: --scale must be 0 or more and below 0.9, --shift below 1")
        if not 0 <= self.rotation <= 180 or self.rare < 0:
            raise UserError("spn-instances: --rotation must be 0 to 180, --rare 0 or more")


@dataclass(frozen=True)
class InferenceSettings:
    """Which stages run on a video, and with what; by default all do."""

    shorter_side: int | None = None
    """Length in pixels that the shorter side is scaled to for the foreground and object nets; by default what the
    weights ask for, else the frame's own."""
    foreground: bool = True
    """Keep objects inside the mask of the foreground net."""
    spn: bool = True
    """Refine the masks of the objects by spatial propagation."""
    craf: bool = True
    """Filter connected regions (CRAF); without it each pixel belongs to its strongest map that is at least 0.5."""
    craf_rule: Literal["demo", "paper"] | None = None
    """Filter of the released demo, in which an object that is lost once stays lost, or of the paper; by default demo
    for the official network, and paper for small ones, which lose objects more often."""
    spn_shorter_side: int | None = None
    """Length in pixels that the shorter side is scaled to for the refinement network; by default what its weights ask
    for, else the frame's own."""
    spn_weights: Path | None = None
    """Refinement network of two classes: a file of ours or a .caffemodel; by default that of the package."""
    networks: Path | None = None
    """Use trained networks instead of fine-tuning: the OUTPUT folder of train object, and of train foreground if it was
    run."""
    foreground_masks: Path | None = None
    """Use masks instead of the foreground net: folder with <video>/<frame>.png, 0 and 255, such as the official fgbg
    results."""
    intermediate: Path | None = None
    """Also write the maps of the stages as 8-bit PNGs in the official layouts: FOLDER/fgbg/<video>/<frame>.png, and in
    FOLDER/perobj/<video>/ and FOLDER/spn/<video>/ a file <frame>_<object>.png for each object."""

    def __post_init__(self) -> None:
        require_numbers(self, "spn-instances", "shorter_side", "spn_shorter_side", least=16)


@dataclass(frozen=True)
class OnlineSettings:
    """Fine-tuning on first frames, before a video is segmented.

    The foreground and each object have networks of their own, until the video ends.
    """

    preset: Literal["code", "small"] | None = None
    """Solver. code: the released one (30,000 steps, hours on a GPU). small: our own AdamW, with few steps. By default
    code for the official network, and small for the small ones."""
    steps: int | None = None
    """Steps of the solver; by default the preset's."""
    learning_rate: float | None = None
    """Learning rate of the first step. Preset code: the rate for 480x854 frames; it is larger in proportion for smaller
    ones. Preset small: the rate for frames of any size; it falls to 0."""
    tune_foreground: bool = True
    """Fine-tune the foreground net; without it, the parent net is used."""
    tune_objects: bool = True
    """Fine-tune a network for each object; without it, objects share the foreground around them as in segment."""
    fast: bool = False
    """Keep the early layers, up to stride 8, as they are, and compute their features once for all objects; objects
    start from the foreground's network and take a third of the steps. The preset small always does."""
    fast_samples: int = 32
    """With --fast: number of augmented first frames whose features are kept in memory."""
    models: Path | None = None
    """Keep the fine-tuned networks as FOLDER/<video>/<name>-<origin>.safetensors. origin is a hash of frames, masks,
    weights and settings; a network with the same hash is read and not trained again."""

    def __post_init__(self) -> None:
        _ = self.solver  # Refuses numbers that no solver takes.
        require_numbers(self, "spn-instances", "fast_samples", least=1)

    def for_trunk(self, trunk: str) -> OnlineSettings:
        """These settings with nothing left open, for a network with this trunk."""
        preset = self.preset or ("code" if trunk == "resnet" else "small")
        solver = replace(self, preset=preset).solver
        return replace(
            self,
            preset=preset,
            steps=solver.steps,
            learning_rate=solver.learning_rate,
            fast=self.fast or preset == "small",
        )

    @property
    def solver(self) -> SolverSettings:
        """The solver, of settings `for_trunk`."""
        preset = SMALL_INSTANCE if self.preset == "small" else CODE
        return replace(
            preset,
            steps=preset.steps if self.steps is None else self.steps,
            learning_rate=preset.learning_rate if self.learning_rate is None else self.learning_rate,
        )

    @property
    def object_solver(self) -> SolverSettings:
        """The fast mode's solver for an object's network that starts from the foreground's."""
        return replace(self.solver, steps=math.ceil(self.solver.steps * OBJECT_STEPS))


@dataclass(frozen=True)
class RefinementSettings:
    """Training of the refinement network; the defaults are caffe-spn's, with the crops of the paper's two classes.

    Attributes:
        steps: Number of steps.
        batch_size: Crops a step, for each process.
        learning_rate: Learning rate of the first step; it falls as (1 - step / steps) ** 0.5. VGG-16 and the first
            layer of the mask learn with a tenth of it, biases with twice the rate of their layer.
        momentum: Momentum of the solver; of adamw the first beta.
        weight_decay: Weight decay of all weights.
        clip: Largest norm of the gradient; larger gradients are scaled down.
        crop: Side of the square crops in pixels, a multiple of 32.
        save_steps: Steps between two saves.
        seed: Seed of all random draws.
        rule: sgd is Caffe's solver. adamw is ours, for few steps from random weights: one rate for all weights, which
            falls linearly to 0.
        shorter_side: Stored in the weights: length in pixels that the shorter side of frames is scaled to when these
            weights are used; by default frames keep their size.
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
    rule: Rule = "sgd"
    shorter_side: int | None = None

    def __post_init__(self) -> None:
        require_numbers(self, "spn-instances", "steps", "batch_size", "save_steps", least=1)
        require_numbers(self, "spn-instances", "seed", least=0, below=2**63)
        require_numbers(self, "spn-instances", "momentum", least=0, below=1)
        require_numbers(self, "spn-instances", "weight_decay", least=0)
        require_numbers(self, "spn-instances", "crop", least=32)
        if self.crop % 32:
            raise UserError(f"spn-instances: --crop is {self.crop}; it must be a multiple of 32")
        require_numbers(self, "spn-instances", "shorter_side", least=16)
        require_numbers(self, "spn-instances", "learning_rate", "clip", above=0)

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        left = 1 - step / self.steps
        return self.learning_rate * (left if self.rule == "adamw" else math.sqrt(left))
