"""The ``train`` command: four published configurations, and one for any videos."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from dense_ulearn.presets import CUSTOM, KINETICS, OXUVA, TRACK, YTVOS, TrainingSettings
from vos_shared.errors import UserError
from vos_shared.options import require_numbers
from vos_shared.training.arguments import RunArguments

if TYPE_CHECKING:
    from vos_shared.video import Video


@dataclass(frozen=True, kw_only=True)
class TrainArguments(RunArguments):
    """Options of every training run."""

    settings: Annotated[TrainingSettings, tyro.conf.arg(name="")] = CUSTOM
    weights: Path | None = None
    """Start from these weights instead of random ones."""
    validation: Path | None = None
    """DAVIS folder (2017 or 2016) to validate on; without it there is no validation and no best/."""
    validation_split: str = "train"
    """Its list of sequences, by name or path. Do not validate on the set that you report results on."""
    validation_sequences: tuple[str, ...] = ()
    """Use only these sequences of the list."""
    keep: int = 3
    """How many improved snapshots stay in best/."""

    def start(self, find_videos: Callable[[], Sequence[Video]], data: str) -> int:
        """Train on the videos that `find_videos` finds; `data` describes them.

        Returns:
            The exit code.
        """
        from dense_ulearn.data import ClipDataset
        from dense_ulearn.training import train
        from vos_shared.training.agreement import together

        settings = self.settings
        self.check()  # Before videos are decoded, which takes time.
        validation, weights = self._validation(), self._weights()
        fabric = self.launch()
        videos = together(find_videos, fabric)  # The first process decodes video files; the others read the frames.
        clips = ClipDataset(videos, settings.sampling, settings.augmentation, settings.seed)
        options = self.run_options(data)
        last = train(settings, clips, options, fabric, validation=validation, weights=weights, keep=self.keep)
        return self.ended(last, fabric)

    def check(self) -> None:
        """Refuse, before any work, options that cannot be used.

        Raises:
            UserError: naming the option.
        """
        from dense_ulearn.objective import check_settings
        from vos_shared.runtime.device import choose_device

        check_settings(self.settings)
        require_numbers(self, "training", "keep", least=1)
        if self.resume and self.weights is not None:
            raise UserError("training: --weights starts a run, --resume continues one; leave one of them out")
        super().check()
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
    """Folder that the paths in the list are relative to."""
    list: Path
    """File list: one frame per line, for Kinetics one folder per line."""
    folders: Annotated[bool, tyro.conf.Suppress] = False  # The list names folders.

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
        from dense_ulearn.sources import usable
        from vos_shared.training.videos import found_videos

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
