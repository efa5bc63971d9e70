"""The ``train`` command: four published configurations, and one for any videos."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from dense_ulearn.presets import CUSTOM, KINETICS, OXUVA, TRACK, YTVOS, TrainingSettings
from vos_shared.cli import STOPPED
from vos_shared.errors import UserError

if TYPE_CHECKING:
    from vos_shared.video import Video


@dataclass(frozen=True, kw_only=True)
class TrainArguments:
    """What every training run is told."""

    output: Path
    """Folder of the run: resume.pt, last.safetensors, best/, log.jsonl, tensorboard/."""
    settings: Annotated[TrainingSettings, tyro.conf.arg(name="")] = CUSTOM
    resume: bool = False
    """Go on with the run in OUTPUT, exactly where its resume.pt was written."""
    weights: Path | None = None
    """Start from these weights instead of random ones."""
    validation: Path | None = None
    """DAVIS folder (2017, or 2016) to validate on; without one there is no validation and no best/."""
    validation_split: str = "train"
    """Its list of sequences, by name or path. Do not choose weights by the set that they will be judged on."""
    validation_sequences: tuple[str, ...] = ()
    """Of the list, only these."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    precision: str = "fp32"
    """fp32, or mixed precision with bf16 or fp16."""
    devices: int = 1
    """Processes (GPUs) on each machine, each with its own --batch clips; torchrun's own number has precedence."""
    nodes: int = 1
    """Machines; the same."""
    workers: int = 4
    """Processes that read clips, for each GPU."""
    minutes: float = 5.0
    """Wall time between two writes of resume.pt and last.safetensors."""
    keep: int = 3
    """How many improved snapshots stay in best/."""

    def start(self, find_videos: Callable[[], Sequence[Video]], data: str) -> int:
        """Train on the videos that `find_videos` finds; `data` says in words what they are.

        Returns:
            The exit code: `STOPPED` where the run was asked to stop early.
        """
        from dense_ulearn.data import ClipDataset
        from dense_ulearn.training import Run, train
        from vos_shared.runtime.agreement import together
        from vos_shared.runtime.distributed import fabric

        settings = self.settings
        self._check()  # What can fail comes before videos are decoded.
        validation, weights = self._validation(), self._weights()
        lightning = fabric(self.device, self.precision, devices=self.devices, nodes=self.nodes)
        lightning.launch()
        videos = together(find_videos, lightning)  # The first process decodes video files, others find the frames.
        clips = ClipDataset(videos, settings.sampling, settings.augmentation, settings.seed)
        run = Run(self.output, self.resume, self.minutes, self.workers, self.keep, data)
        last = train(settings, clips, run, lightning, validation=validation, weights=weights)
        if lightning.is_global_zero:
            print(last or f"stopped; go on with --resume --output {self.output}")
        return 0 if last else STOPPED

    def _check(self) -> None:
        from dense_ulearn.trainer import check_settings
        from dense_ulearn.training import RESUME
        from vos_shared.runtime.device import choose_device

        check_settings(self.settings)
        if self.workers < 0 or self.keep < 1 or not self.minutes >= 0:
            raise UserError("training: --workers and --minutes cannot be negative, --keep must be at least 1")
        if self.output.exists() and not self.output.is_dir():
            raise UserError(f"training: --output {self.output} is a file; give a folder")
        if self.resume and self.weights is not None:
            raise UserError("training: --weights starts a run, --resume goes on with one; leave one of them out")
        if self.resume and not (self.output / RESUME).is_file():
            raise UserError(f"training: {self.output} holds no run to go on with ({RESUME}); leave out --resume")
        if not self.resume and (self.output / RESUME).is_file():
            raise UserError(f"training: {self.output} already holds a run; choose another --output, or add --resume")
        if self.settings.sync_bn and choose_device(self.device).type != "cuda":
            raise UserError("training: --sync-bn works on CUDA devices only; leave it out")

    def _validation(self) -> Any:
        from dense_ulearn.validation import Validation
        from vos_shared.datasets import davis2016, davis2017

        if self.validation is None:
            return None
        year = davis2017 if (self.validation / "ImageSets" / "2017").is_dir() else davis2016
        found = year(self.validation, self.validation_split, sequences=self.validation_sequences or None)
        return Validation.checked(found)

    def _weights(self) -> Any:
        from dense_ulearn.checkpoints import load_weights

        return None if self.weights is None else load_weights(self.weights).state


@dataclass(frozen=True, kw_only=True)
class TrainOnList(TrainArguments):
    """Train on a data set with the published settings, from the file list that its authors give."""

    root: Path
    """What the paths in the list are relative to."""
    list: Path
    """File list: one frame a line, or for Kinetics one folder a line."""
    folders: Annotated[bool, tyro.conf.Suppress] = False  # What the list holds.

    def run(self) -> int:
        """Train."""
        from dense_ulearn.sources import ListedFolders, listed_videos, usable

        def find() -> Sequence[Video]:
            if self.folders:
                return ListedFolders(self.list, self.root)
            return usable(listed_videos(self.list, self.root), self.settings)

        return self.start(find, self.list.stem)


@dataclass(frozen=True, kw_only=True)
class TrainOnVideos(TrainArguments):
    """Train on videos of your own; no masks are needed."""

    videos: tuple[Path, ...]
    """Folders of videos (video files, folders of frames), folders of frames, video files, or patterns in quotes."""

    def run(self) -> int:
        """Train."""
        from dense_ulearn.sources import found_videos, usable

        longest = self.settings.augmentation.shorter_side[1]
        names = ", ".join(place.name for place in self.videos)
        return self.start(lambda: usable(found_videos(self.videos, self.output, longest), self.settings), names)


_LISTED: dict[str, Any] = {"output": tyro.MISSING, "root": tyro.MISSING, "list": tyro.MISSING}

if TYPE_CHECKING:
    TrainingData = TrainOnList | TrainOnVideos
else:  # One subcommand for each configuration.
    TrainingData = tyro.extras.subcommand_type_from_defaults(
        {
            "ytvos": TrainOnList(settings=YTVOS, **_LISTED),
            "oxuva": TrainOnList(settings=OXUVA, **_LISTED),
            "track": TrainOnList(settings=TRACK, **_LISTED),
            "kinetics": TrainOnList(settings=KINETICS, folders=True, **_LISTED),
            "custom": TrainOnVideos(output=tyro.MISSING, videos=tyro.MISSING),
        },
        descriptions={
            "ytvos": "YouTube-VOS, as published.",
            "oxuva": "OxUvA, as published.",
            "track": "TrackingNet, as published.",
            "kinetics": "Kinetics-400, as published.",
            "custom": "Videos of your own.",
        },
        prefix_names=False,
    )


@dataclass(frozen=True)
class Train:
    """Train the features on unlabelled video: a published configuration, or `custom` for videos of your own."""

    data: Annotated[TrainingData, tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes]
    """What to train on."""

    def run(self) -> int:
        """Train."""
        return self.data.run()
