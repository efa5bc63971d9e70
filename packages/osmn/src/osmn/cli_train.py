"""The ``train`` command: the published stages, and stage 1 on any folder of images with object masks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from osmn.presets import COCO, DAVIS, YOUTUBE_VOS, SampleSettings, TrainingSettings, require_trainable
from vos_shared.errors import UserError
from vos_shared.options import require_numbers
from vos_shared.training.arguments import RunArguments

if TYPE_CHECKING:
    from osmn.data import Source

Variant = Literal["osvos", "mod_early_conv", "no_visual", "no_spatial", "deeplab", "masktrack", "lite"]


@dataclass(frozen=True, kw_only=True)
class TrainArguments(RunArguments):
    """Options of every training run."""

    weights: str
    """What the network starts from: imagenet (torchvision's VGG16), random, slim's vgg_16.ckpt, Keras' MobileNet as npz
    (lite), an official checkpoint, or a safetensors file of ours."""
    settings: TrainingSettings = COCO[0]
    samples: SampleSettings = COCO[1]
    variant: Variant = "osvos"
    """Network; without effect where --weights is a safetensors file, which records its own."""
    head_width: int = 2048
    """lite: channels before the modulation heads."""

    def __post_init__(self) -> None:
        require_numbers(self, "osmn", "head_width", least=1)

    def start_training(self, find_source: Callable[[], Source], data: str) -> int:
        """Train on a source.

        Args:
            find_source: makes the source; called in every process, first in one process of each machine.
            data: describes it.

        Returns:
            The exit code.
        """
        from osmn.training import train
        from vos_shared.runtime.seeding import seed_everything
        from vos_shared.training.agreement import together

        fabric = self.launch()
        source = together(find_source, fabric)
        seed_everything(self.settings.seed)
        model, scale_value = self._model()
        masktrack = model.architecture.base_model == "masktrack"
        samples = replace(self.samples, scale_value=scale_value, mask_guide=masktrack)
        side, options = self._shorter_side(model), self.run_options(data)
        return self.ended(train(model, source, samples, self.settings, options, fabric, shorter_side=side), fabric)

    def _model(self) -> tuple[Any, float]:
        """The network with its start values, and the factor of the normalised pixels that fits it.

        Raises:
            UserError: no such weights, or settings that do not fit the network.
        """
        from osmn.checkpoints import LITE_SCALE, read_weights
        from osmn.imagenet import starting_model
        from osmn.networks import VARIANTS

        if self.weights.endswith(".safetensors"):
            snapshot = read_weights(Path(self.weights))
            require_trainable(snapshot.model.architecture, self.samples, self.settings)
            return snapshot.model, snapshot.scale_value
        architecture = replace(VARIANTS[self.variant], head_width=self.head_width)
        require_trainable(architecture, self.samples, self.settings)
        scale_value = LITE_SCALE if self.variant == "lite" else 1.0
        return starting_model(architecture, self.weights, scale_value), scale_value

    def _shorter_side(self, model: Any) -> int | None:
        """Shorter side of frames at test time; set after photographs for lite only, which learns on small frames."""
        return min(self.samples.size) if model.architecture.base_model == "lite" else None


@dataclass(frozen=True, kw_only=True)
class TrainOnCoco(TrainArguments):
    """Stage 1: COCO; a sample is one object in one photograph."""

    root: Path
    """Folder with annotations/instances_<split>.json and <split>/."""
    split: str = "train2017"
    """Name of the annotation file and of the folder of images."""

    def run(self) -> int:
        """Train."""
        from osmn.data import CocoImages

        return self.start_training(lambda: CocoImages.open(self.root, self.split), "COCO")


@dataclass(frozen=True, kw_only=True)
class TrainOnImages(TrainArguments):
    """Stage 1 on any photographs: folders with images/NAME.jpg and masks/NAME.png, one object each."""

    images: tuple[Path, ...]
    """Folders that hold images/ and masks/."""
    davis: tuple[Path, ...] = ()
    """Also train on every object of the val lists of these DAVIS folders, for example of synthetic clips."""

    def run(self) -> int:
        """Train."""
        from osmn.data import Mixture, StillImages, VideoFrames
        from vos_shared.datasets import davis2017

        def find() -> Source:
            sources: list[Source] = [StillImages.from_folder(folder) for folder in self.images]
            sources += [VideoFrames.from_sequences(davis2017(root), self.output) for root in self.davis]
            return Mixture(sources)

        names = [place.resolve().name for place in (*self.images, *self.davis)]
        return self.start_training(find, ", ".join(names))


@dataclass(frozen=True, kw_only=True)
class TrainOnVideos(TrainArguments):
    """Stage 2: annotated videos; a sample is one object in a frame and in the frame before it."""

    root: Path
    """Folder of the data set."""
    dataset: Literal["davis2016", "davis2017", "youtube-vos"] = "davis2017"
    """Layout of the data set."""
    split: str = "train"
    """List of sequences."""
    sequences: tuple[str, ...] = ()
    """Use only these sequences of the list."""
    exclude: tuple[str, ...] = ()
    """Leave out these sequences of the list."""
    randomize_guide: bool = True
    """Draw the visual guide from all good frames of the object; otherwise use its first frame."""

    def run(self) -> int:
        """Train."""
        from osmn.data import VideoFrames
        from vos_shared.datasets import load_dataset

        def find() -> Source:
            found = load_dataset(self.dataset, self.root, self.split, self.sequences or None)
            if unknown := sorted(set(self.exclude) - {sequence.name for sequence in found}):
                raise UserError(f"osmn: --exclude names {', '.join(unknown)}, not in the list {self.split}")
            used = [sequence for sequence in found if sequence.name not in self.exclude]
            return VideoFrames.from_sequences(used, self.output, randomize_guide=self.randomize_guide)

        return self.start_training(find, self.dataset)

    def _shorter_side(self, model: Any) -> int:
        """The shorter side of the training frames, so that objects are as large as in training."""
        return min(self.samples.size)


_VIDEOS: dict[str, Any] = {"output": tyro.MISSING, "root": tyro.MISSING}

if TYPE_CHECKING:
    TrainingData = TrainOnCoco | TrainOnImages | TrainOnVideos
else:  # One subcommand for each configuration.
    TrainingData = tyro.extras.subcommand_type_from_defaults(
        {
            "coco": TrainOnCoco(output=tyro.MISSING, root=tyro.MISSING, weights="imagenet"),
            "images": TrainOnImages(output=tyro.MISSING, images=tyro.MISSING, weights="imagenet"),
            "davis": TrainOnVideos(weights=tyro.MISSING, settings=DAVIS[0], samples=DAVIS[1], **_VIDEOS),
            "ytvos": TrainOnVideos(
                weights="imagenet", settings=YOUTUBE_VOS[0], samples=YOUTUBE_VOS[1], dataset="youtube-vos", **_VIDEOS
            ),
        },
        descriptions={
            "coco": "Stage 1 as published.",
            "images": "Stage 1 on photographs of your own.",
            "davis": "Stage 2 as published.",
            "ytvos": "YouTube-VOS as published.",
        },
        prefix_names=False,
    )


@dataclass(frozen=True)
class Train:
    """Train the network: stage 1 on COCO or other photographs, stage 2 on DAVIS, or YouTube-VOS."""

    data: Annotated[TrainingData, tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes]
    """What to train on."""

    def run(self) -> int:
        """Train."""
        return self.data.run()
