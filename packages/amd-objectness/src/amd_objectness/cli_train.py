"""The ``train`` command: YouTube-VOS from the official split file, or any videos."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from amd_objectness.presets import TrainingSettings
from amd_objectness.settings import Architecture
from vos_shared.errors import UserError
from vos_shared.training.arguments import RunArguments

if TYPE_CHECKING:
    from amd_objectness.networks import AMD
    from vos_shared.video import Video


@dataclass(frozen=True, kw_only=True)
class TrainArguments(RunArguments):
    """Arguments of every training run."""

    settings: Annotated[TrainingSettings, tyro.conf.arg(name="")] = field(default_factory=TrainingSettings)
    architecture: Annotated[Architecture, tyro.conf.arg(name="")] = field(default_factory=Architecture)
    weights: str | None = None
    """Start from these weights, a file or a name, instead of random ones; --backbone, --width and --head-width are then
    those of the weights."""

    def start(self, find_videos: Callable[[], Sequence[Video]], data: str) -> int:
        """Train on the videos that `find_videos` finds; `data` describes them in words.

        Returns:
            The exit code.
        """
        from amd_objectness.training import train
        from vos_shared.training.agreement import together

        if self.resume and self.weights is not None:
            raise UserError("training: --weights starts a run, --resume goes on with one; leave one of them out")
        self.check()  # Before videos are decoded.
        model = self._model()
        fabric = self.launch()
        videos = together(find_videos, fabric)  # The first process decodes video files, others find the frames.
        return self.ended(train(model, videos, self.settings, self.run_options(data), fabric), fabric)

    def _model(self) -> AMD:
        from amd_objectness.checkpoints import load_weights, untrained

        if self.weights is None:
            return untrained(self.architecture, self.settings.seed).network()
        loaded = load_weights(self.weights)
        given = replace(loaded.architecture, motion_size=self.architecture.motion_size)
        return replace(loaded, architecture=given).network()


@dataclass(frozen=True, kw_only=True)
class TrainOnList(TrainArguments):
    """Train on YouTube-VOS as released, from a split file; each line names the folder of a video and its frames."""

    root: Path
    """Folder that the folders in the list are relative to."""
    list: Path
    """Split file, such as the authors' ytb_2019.txt, whose lines begin with train_all_frames/JPEGImages/<id>."""

    def run(self) -> int:
        """Train."""
        from amd_objectness.data import usable
        from vos_shared.datasets.frame_lists import read_clip_list
        from vos_shared.video import Video

        def find() -> Sequence[Video]:
            clips = read_clip_list(self.list, self.root)
            return usable(Video.from_files(files, name=files[0].parent.name) for files in clips)

        return self.start(find, self.list.stem)


@dataclass(frozen=True, kw_only=True)
class TrainOnVideos(TrainArguments):
    """Train on videos of your own; no masks are needed."""

    videos: tuple[Path, ...]
    """Folders of videos (video files, folders of frames), folders of frames, video files, or patterns in quotes."""

    def run(self) -> int:
        """Train."""
        from amd_objectness.data import usable
        from vos_shared.training.videos import found_videos

        longest = self.settings.sampling.shorter_side
        names = ", ".join(place.name for place in self.videos)
        return self.start(lambda: usable(found_videos(self.videos, self.output, longest)), names)


if TYPE_CHECKING:
    TrainingData = TrainOnList | TrainOnVideos
else:
    TrainingData = (
        Annotated[TrainOnList, tyro.conf.subcommand("ytvos", prefix_name=False)]
        | Annotated[TrainOnVideos, tyro.conf.subcommand("custom", prefix_name=False)]
    )


@dataclass(frozen=True)
class Train:
    """Train both networks from scratch on unlabelled videos."""

    data: Annotated[TrainingData, tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes]
    """Training data."""

    def run(self) -> int:
        """Train."""
        return self.data.run()
