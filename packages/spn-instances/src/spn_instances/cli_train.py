"""The ``train`` command: the parent net, fine-tuning on first frames, and the refinement network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from spn_instances.settings import (
    CODE,
    PAPER_INSTANCE,
    PAPER_PARENT,
    SMALL,
    SMALL_INSTANCE,
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
    from vos_shared.datasets import VideoSequence


@dataclass(frozen=True, kw_only=True)
class SolverArguments(RunArguments):
    """Options of every training of a foreground or object net."""

    preset: Literal["code", "paper", "small"] = "code"
    """Solver. code: as in the released files (learning rate 1e-10). paper: as in the paper (1e-8, in fine-tuning halved
    every 10,000 steps). small: our own AdamW with few steps, for small machines. The options below have precedence."""
    steps: int | None = None
    """Steps of the optimiser; by default the preset's (code: 30,000; paper: 100,000 for the parent, 30,000 in
    fine-tuning; small: 4,000 and 60)."""
    learning_rate: float | None = None
    """Learning rate of the first step; by default the preset's. Presets code and paper: the rate for 480x854 frames; it
    grows as frames get smaller. Preset small: the rate for frames of any size; it falls to 0."""
    batch_size: int | None = None
    """Frames a step; by default the preset's (1; small: 4 for the parent, 2 in fine-tuning)."""
    momentum: float | None = None
    """Momentum; by default the preset's (0.99; small: 0.9)."""
    save_steps: int | None = None
    """Steps between two saves; by default the preset's (3,000; small: 500)."""
    seed: int | None = None
    """Seed of the random generators; by default 1337."""
    samples: Annotated[SampleSettings, tyro.conf.OmitArgPrefixes] = field(default_factory=SampleSettings)

    def solver(self, paper: SolverSettings, small: SolverSettings) -> SolverSettings:
        """The solver of the preset, with the values of the options.

        Args:
            paper: the paper's solver for this stage.
            small: our own solver for this stage.
        """
        names = ("steps", "learning_rate", "batch_size", "momentum", "save_steps", "seed")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return replace({"code": CODE, "paper": paper, "small": small}[self.preset], **given)


@dataclass(frozen=True, kw_only=True)
class TrainParent(SolverArguments):
    """Train the parent net: foreground against background on a whole data set."""

    root: Path
    """Folder of the data set."""
    dataset: Literal["davis2016", "davis2017", "youtube-vos"] = "davis2017"
    """Kind of data set."""
    split: str = "train"
    """Name of a split, or path of a list of sequences."""
    sequences: tuple[str, ...] = ()
    """Train on these sequences of the list only."""
    exclude: tuple[str, ...] = ()
    """Leave out these sequences of the list."""
    images: tuple[Path, ...] = ()
    """Also train on photographs with masks, drawn as often as frames: folders with images/ and masks/, or PASCAL VOC
    folders."""
    pairs: Path | None = None
    """Train on an official list instead of a split: each line names a frame and its mask, by paths below ROOT."""
    start: str = "imagenet"
    """Start values: imagenet (torchvision's ResNet, or EfficientNet-Lite0 from the package that the extra efficientnet
    installs), random, or a file: MSRA's ResNet (.caffemodel), Keras' MobileNet-v1 (.npz), or a network of ours
    (.safetensors), whose trunk replaces --trunk."""
    trunk: TrunkName = "resnet"
    """Trunk of the network: resnet is the paper's, ResNet-101 in its Caffe form; the others are for small machines."""

    def run(self) -> int:
        """Train."""
        from spn_instances.data import TrainingSamples
        from spn_instances.training import train
        from vos_shared.runtime.seeding import seed_everything
        from vos_shared.training.agreement import together

        settings = self.solver(PAPER_PARENT, SMALL)
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
            if self.sequences or self.exclude:
                raise UserError("spn-instances: --pairs lists frames; leave out --sequences and --exclude")
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
    """The parent net: a file of ours, a .caffemodel, or a name in the table of weights."""
    prompt: Path | None = None
    """For a video: palette PNG with the objects of its first frame."""
    samples: Annotated[SampleSettings, tyro.conf.OmitArgPrefixes] = field(
        default_factory=lambda: SampleSettings(size=None)
    )

    def check(self) -> None:
        """Refuse options that cannot be used; the folders of the runs are two levels below OUTPUT."""
        there = sorted(self.output.glob(f"*/*/{RESUME}")) if self.output.is_dir() else []
        RunArguments.check(replace(self, output=there[0].parent) if there else self)

    def fine_tune(self, objects_of: Callable[[str, list[int]], list[int | None]], name: str) -> int:
        """Fine-tune networks on first frames, one after the other.

        Args:
            objects_of: takes the name of a sequence and the object ids of its first frame, and returns those to
                learn, each with a network of its own; None stands for all objects together.
            name: folder of a run, with a placeholder for the object id.

        Returns:
            The exit code.
        """
        from vos_shared.method import Supervision

        settings = self.solver(PAPER_INSTANCE, SMALL_INSTANCE)
        sequences = self.load(self.prompt)
        require_prompts(sequences, Supervision.FIRST_FRAME)
        wanted = [objects_of(*_first_ids(sequence)) for sequence in sequences]  # Refuses before any work.
        fabric = self.launch()
        for sequence, object_ids in zip(sequences, wanted, strict=True):
            for object_id in object_ids:
                folder = self.output / sequence.name / name.format(object_id)
                last = self._one(sequence, object_id, folder, settings, fabric)
                if last is None:
                    return self.ended(None, fabric)
        return self.ended(last, fabric)

    def _one(
        self, sequence: VideoSequence, object_id: int | None, folder: Path, settings: SolverSettings, fabric: Fabric
    ) -> Path | None:
        import numpy as np

        from spn_instances.checkpoints import load_weights
        from spn_instances.data import TrainingSamples
        from spn_instances.networks import ResNetF
        from spn_instances.training import train
        from spn_instances.weights import WEIGHTS
        from vos_shared.masks import VOID

        mask = sequence.annotation(sequence.frame_names[0])
        assert mask is not None
        label = (mask > 0) & (mask != VOID) if object_id is None else mask == object_id
        samples = TrainingSamples([(sequence.video[0], label.astype(np.uint8))], self.samples, settings.seed)
        options = self.run_options(f"fine-tuned on the first frame of {folder.parent.name}")
        options = replace(options, folder=folder, resume=(folder / RESUME).is_file())
        return train(load_weights(WEIGHTS.locate(self.weights), ResNetF).model, samples, settings, options, fabric)


def _first_ids(sequence: VideoSequence) -> tuple[str, list[int]]:
    """Name of a sequence and object ids of its first frame."""
    from vos_shared.masks import VOID, ids_of

    mask = sequence.annotation(sequence.frame_names[0])
    ids = [] if mask is None else [object_id for object_id in ids_of(mask) if object_id != VOID]
    if not ids:
        raise UserError(
            f"spn-instances: {sequence.name} has no object in its first frame to learn; leave it out with --sequences, "
            "or give another --prompt"
        )
    return sequence.name, ids


@dataclass(frozen=True, kw_only=True)
class TrainForeground(FineTuneArguments):
    """Fine-tune the foreground net on the first frame of each video, in OUTPUT/<sequence>/foreground/."""

    def run(self) -> int:
        """Train."""
        return self.fine_tune(lambda _, __: [None], "foreground")


@dataclass(frozen=True, kw_only=True)
class TrainObject(FineTuneArguments):
    """Fine-tune a network for each object on the first frame of its video, in OUTPUT/<sequence>/object-<id>/."""

    objects: tuple[int, ...] = ()
    """Ids of the objects to learn; by default all of the first frame."""

    def run(self) -> int:
        """Train."""
        return self.fine_tune(self._wanted, "object-{}")

    def _wanted(self, sequence: str, ids: list[int]) -> list[int | None]:
        if absent := sorted(set(self.objects) - set(ids)):
            raise UserError(
                f"spn-instances: the first frame of {sequence} has no object {absent[0]}; it has "
                f"{', '.join(map(str, ids))}; change --objects"
            )
        return [object_id for object_id in ids if not self.objects or object_id in self.objects]


@dataclass(frozen=True, kw_only=True)
class TrainRefinement(RunArguments):
    """Train the refinement network (SPN) on photographs with masks; the coarse masks are degraded true masks."""

    images: tuple[Path, ...]
    """Folders with images/ (.jpg or .png) and masks/ (.png, equal names), or PASCAL VOC folders."""
    start: str = "imagenet"
    """Start values: imagenet (torchvision's VGG-16), random, or a file: VGG-16 or a refinement network (.caffemodel), a
    network of ours (.safetensors); the sizes of the latter replace --width and --channels."""
    width: int = 64
    """Channels of the first convolutions; VGG-16 has 64."""
    channels: int = 32
    """Number of propagated channels."""
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
            model = load_weights(self.start, RefinementNet).model
            if model.architecture.classes != 2:
                raise UserError(
                    f"spn-instances: {self.start} is for {model.architecture.classes} classes; training has 2"
                )
            return model
        return starting_refinement(Refinement(2, self.width, self.channels), self.start)


@dataclass(frozen=True)
class Train:
    """Train the parent net, networks that are fine-tuned on first frames, or the refinement network."""

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
