"""The ``train`` command: the parent net, first-frame fine-tuning, and the refinement network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from spn_instances.settings import (
    CODE,
    PAPER_INSTANCE,
    PAPER_PARENT,
    SMALL,
    RefinementSettings,
    SampleSettings,
    SolverSettings,
    TrunkName,
)
from vos_shared.errors import UserError
from vos_shared.inputs import InputArguments, require_prompts
from vos_shared.training.arguments import RESUME, RunArguments

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from spn_instances.data import Source
    from spn_instances.networks import RefinementNet, ResNetF


@dataclass(frozen=True, kw_only=True)
class SolverArguments(RunArguments):
    """Options of every training of a foreground or object network."""

    preset: Literal["code", "paper", "small"] = "code"
    """Solver as in the released files (rate 1e-10), or as in the paper (1e-8; object networks halve it every 10,000
    steps); or our own AdamW for few steps on small machines. The options below have precedence."""
    steps: int | None = None
    """Steps of the optimiser; by default the preset's (code: 30,000; paper: 100,000 for the parent, otherwise 30,000;
    small: 4,000)."""
    learning_rate: float | None = None
    """Learning rate; by default the preset's. Presets code and paper: the rate for 480x854 frames, which is larger in
    proportion for smaller ones. Preset small: the rate of the first step for frames of any size; it falls to 0."""
    batch_size: int | None = None
    """Frames in a step; by default the preset's (1; small: 4)."""
    momentum: float | None = None
    """Momentum of the gradient; by default the preset's (0.99; small: 0.9)."""
    save_steps: int | None = None
    """Steps from one save to the next; by default the preset's (3000; small: 500)."""
    seed: int | None = None
    """Seed of the random generators; by default 1337."""
    samples: Annotated[SampleSettings, tyro.conf.OmitArgPrefixes] = field(default_factory=SampleSettings)

    def solver(self, paper: SolverSettings) -> SolverSettings:
        """The preset, with what the options change.

        Args:
            paper: what the paper says of this stage.
        """
        names = ("steps", "learning_rate", "batch_size", "momentum", "save_steps", "seed")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return replace({"code": CODE, "paper": paper, "small": SMALL}[self.preset], **given)


@dataclass(frozen=True, kw_only=True)
class TrainParent(SolverArguments):
    """Train the parent net: foreground against background on a whole data set."""

    root: Path
    """Folder of the data set."""
    dataset: Literal["davis2016", "davis2017", "youtube-vos"] = "davis2017"
    """Kind of data set."""
    split: str = "train"
    """List of sequences, by name or path."""
    sequences: tuple[str, ...] = ()
    """Train on these sequences of the list alone."""
    exclude: tuple[str, ...] = ()
    """Leave out these sequences of the list."""
    images: tuple[Path, ...] = ()
    """Photographs with masks, drawn as often as frames: folders with images/ and masks/, or PASCAL VOC folders."""
    pairs: Path | None = None
    """Train on an official list in place of a split: each line names a frame and its mask, by paths below ROOT."""
    start: str = "imagenet"
    """What the network starts from: imagenet (torchvision's ResNet, or EfficientNet-Lite0 from the package that the
    extra efficientnet installs), random, MSRA's ResNet as .caffemodel, Keras' MobileNet-v1 as npz, or a file of ours.
    """
    trunk: TrunkName = "resnet"
    """resnet (ResNet-101 in its Caffe form), or for small machines resnet18, mobilenet or efficientnet-lite0."""

    def run(self) -> int:
        """Train."""
        from spn_instances.data import TrainingSamples
        from spn_instances.training import train
        from vos_shared.runtime.seeding import seed_everything
        from vos_shared.training.agreement import together

        settings = self.solver(PAPER_PARENT)
        fabric = self.launch()
        source = together(self._source, fabric)
        seed_everything(settings.seed)
        model = self._model()
        where = self.pairs.name if self.pairs else f"{self.root.resolve().name} {self.split}"
        samples = TrainingSamples(source, self.samples, settings.seed)
        options = self.run_options(f"parent net trained on {where}")
        return self.ended(train(model, samples, settings, options, fabric), fabric)

    def _source(self) -> Source:
        from spn_instances.data import Mixture, Photographs

        frames = self._frames()
        return Mixture([frames, Photographs(self.images)]) if self.images else frames

    def _frames(self) -> Source:
        from spn_instances.data import AnnotatedFrames, Pairs
        from vos_shared.datasets import load_dataset

        if self.pairs is not None:
            return Pairs.of_list(self.pairs, self.root)
        sequences = load_dataset(self.dataset, self.root, self.split, self.sequences or None)
        if unknown := set(self.exclude) - {sequence.name for sequence in sequences}:
            raise UserError(f"spn-instances: --exclude {min(unknown)} is not in the list {self.split}")
        return AnnotatedFrames(sequence for sequence in sequences if sequence.name not in self.exclude)

    def _model(self) -> ResNetF:
        from spn_instances.checkpoints import load_weights
        from spn_instances.networks import Architecture, ResNetF
        from spn_instances.starts import starting_foreground

        if self.start.endswith(".safetensors"):
            return load_weights(self.start, ResNetF).model
        return starting_foreground(Architecture(self.trunk), self.start)


@dataclass(frozen=True, kw_only=True)
class FineTuneArguments(SolverArguments, InputArguments):
    """Options of fine-tuning on first frames."""

    weights: str
    """The parent net: a file of ours or a .caffemodel."""
    prompt: Path | None = None
    """For a video: palette PNG with the objects of its first frame."""
    samples: Annotated[SampleSettings, tyro.conf.OmitArgPrefixes] = field(
        default_factory=lambda: SampleSettings(size=None)
    )

    def check(self) -> None:
        """Refuse options that cannot be used; the runs lie two folders below OUTPUT."""
        there = sorted(self.output.glob(f"*/*/{RESUME}")) if self.output.is_dir() else []
        RunArguments.check(replace(self, output=there[0].parent) if there else self)

    def fine_tune(self, objects_of: Callable[[list[int]], list[int | None]], name: str) -> int:
        """Fine-tune a network for each object that is wanted, one after the other.

        Args:
            objects_of: from the ids of the first frame, those to be learned; None is all of them together.
            name: of a run's folder, for an object id.

        Returns:
            The exit code.
        """
        from vos_shared.method import Supervision

        settings = self.solver(PAPER_INSTANCE)
        sequences = self.load(self.prompt)
        require_prompts(sequences, Supervision.FIRST_FRAME)
        fabric = self.launch()
        for sequence in sequences:
            frame, mask = sequence.video[0], sequence.annotation(sequence.frame_names[0])
            ids = sorted({int(value) for value in mask[mask > 0]} - {255}) if mask is not None else []
            if mask is None or not ids:
                raise UserError(f"spn-instances: {sequence.name} has no object in its first frame; nothing to learn")
            for object_id in objects_of(ids):
                label = (mask > 0) & (mask != 255) if object_id is None else mask == object_id
                folder = self.output / sequence.name / name.format(object_id)
                last = self._one(frame, label, folder, settings, fabric)
                if last is None:
                    return self.ended(None, fabric)
        return self.ended(last, fabric)

    def _one(self, frame: Any, label: Any, folder: Path, settings: SolverSettings, fabric: Fabric) -> Path | None:
        import numpy as np

        from spn_instances.checkpoints import load_weights
        from spn_instances.data import FirstFrame, TrainingSamples
        from spn_instances.networks import ResNetF
        from spn_instances.training import train

        samples = TrainingSamples(FirstFrame(frame, label.astype(np.uint8)), self.samples, settings.seed)
        options = self.run_options(f"fine-tuned on the first frame of {folder.parent.name}")
        options = replace(options, folder=folder, resume=(folder / RESUME).is_file())
        return train(load_weights(self.weights, ResNetF).model, samples, settings, options, fabric)


@dataclass(frozen=True, kw_only=True)
class TrainForeground(FineTuneArguments):
    """Fine-tune the foreground net on the first frame of each video: OUTPUT/<sequence>/foreground/."""

    def run(self) -> int:
        """Train."""
        return self.fine_tune(lambda ids: [None], "foreground")


@dataclass(frozen=True, kw_only=True)
class TrainObject(FineTuneArguments):
    """Fine-tune a network for each object of each video on its first frame: OUTPUT/<sequence>/object-<id>/."""

    objects: tuple[int, ...] = ()
    """Learn the objects with these ids alone; by default all."""

    def run(self) -> int:
        """Train."""
        return self.fine_tune(self._wanted, "object-{}")

    def _wanted(self, ids: list[int]) -> list[int | None]:
        if absent := sorted(set(self.objects) - set(ids)):
            raise UserError(
                f"spn-instances: the first frame has no object {absent[0]}; it has {', '.join(map(str, ids))}"
            )
        return [object_id for object_id in ids if not self.objects or object_id in self.objects]


@dataclass(frozen=True, kw_only=True)
class TrainRefinement(RunArguments):
    """Train the refinement network (SPN) on photographs with masks; coarse masks are degraded true ones."""

    images: tuple[Path, ...]
    """Folders with images/NAME.jpg and masks/NAME.png, or PASCAL VOC folders."""
    start: str = "imagenet"
    """imagenet (torchvision's VGG-16), random, VGG-16 or a refinement network as .caffemodel, or a file of ours."""
    width: int = 64
    """Channels of the first convolutions; 64 is VGG-16."""
    channels: int = 32
    """Channels that are propagated."""
    settings: Annotated[RefinementSettings, tyro.conf.OmitArgPrefixes] = field(default_factory=RefinementSettings)

    def run(self) -> int:
        """Train."""
        from spn_instances.refinement_data import ImageMasks, RefinementSamples
        from spn_instances.training_refinement import train_refinement
        from vos_shared.runtime.seeding import seed_everything

        fabric = self.launch()
        source = ImageMasks([pair for folder in self.images for pair in ImageMasks.from_folder(folder).files])
        seed_everything(self.settings.seed)
        model = self._model()
        names = ", ".join(folder.resolve().name for folder in self.images)
        samples = RefinementSamples(source, self.settings.crop, self.settings.seed)
        return self.ended(train_refinement(model, samples, self.settings, self.run_options(names), fabric), fabric)

    def _model(self) -> RefinementNet:
        from spn_instances.checkpoints import load_weights
        from spn_instances.networks import Refinement, RefinementNet
        from spn_instances.starts import starting_refinement

        if self.width < 1 or self.channels < 1:
            raise UserError("spn-instances: --width and --channels must be at least 1")
        if self.start.endswith(".safetensors"):
            return load_weights(self.start, RefinementNet).model
        return starting_refinement(Refinement(2, self.width, self.channels), self.start)


@dataclass(frozen=True)
class Train:
    """Train a network: the parent net, first-frame fine-tuning, or the refinement network."""

    stage: Annotated[
        Annotated[TrainParent, tyro.conf.subcommand("parent")]
        | Annotated[TrainForeground, tyro.conf.subcommand("foreground")]
        | Annotated[TrainObject, tyro.conf.subcommand("object")]
        | Annotated[TrainRefinement, tyro.conf.subcommand("spn")],
        tyro.conf.OmitArgPrefixes,
        tyro.conf.OmitSubcommandPrefixes,
    ]
    """What to train."""

    def run(self) -> int:
        """Train."""
        return self.stage.run()
