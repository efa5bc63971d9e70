"""Where training videos come from: the published file lists; what of them can be used."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import overload

from dense_ulearn.presets import TrainingSettings
from vos_shared.datasets.frame_lists import read_folder_list, read_video_list
from vos_shared.errors import BadDataset, BadVideo
from vos_shared.video import Video


def listed_videos(file: Path, root: Path) -> list[Video]:
    """The videos of a published list with one frame a line.

    Args:
        file: the list; neighbouring frames of one folder are a video.
        root: what the paths in it are relative to.

    Raises:
        BadDataset: no such list, an empty one, or one that names files which are not there.
    """
    return [Video.from_files(files, name=files[0].parent.name) for files in read_video_list(file, root)]


class ListedFolders(Sequence[Video]):
    """The videos of a published list with one folder a line (Kinetics).

    There may be hundreds of thousands, so a folder is looked into when a clip of it is drawn. As published, none is
    left out: clips of fewer frames than they need repeat some, frames are scaled up to the crop.

    Args:
        file: the list.
        root: what the paths in it are relative to.

    Raises:
        BadDataset: no such list, an empty one, or one that names folders which are not there.
    """

    def __init__(self, file: Path, root: Path) -> None:
        self._folders = read_folder_list(file, root)

    def __len__(self) -> int:
        return len(self._folders)

    @property
    def names(self) -> list[str]:
        """Name of each folder."""
        return [folder.name for folder in self._folders]

    @overload
    def __getitem__(self, index: int) -> Video: ...
    @overload
    def __getitem__(self, index: slice) -> list[Video]: ...
    def __getitem__(self, index: int | slice) -> Video | list[Video]:
        """Look into a folder.

        Raises:
            BadVideo: it holds no frames.
        """
        if isinstance(index, slice):
            return [self._open(folder) for folder in self._folders[index]]
        return self._open(self._folders[index])

    @staticmethod
    def _open(folder: Path) -> Video:
        try:
            return Video.open(folder)
        except BadVideo as error:
            raise BadVideo(
                f"training: {error}; put its frames back and go on with --resume, or start another run without it, "
                "from --weights last.safetensors"
            ) from error


def video_names(videos: Sequence[Video]) -> list[str]:
    """Names of the videos, in order; of those of a long list without looking into their folders."""
    return videos.names if isinstance(videos, ListedFolders) else [video.name for video in videos]


def usable(videos: Iterable[Video], settings: TrainingSettings) -> list[Video]:
    """Leave out what cannot be trained on, and say so on one line.

    Raises:
        BadDataset: nothing remains.
    """
    kept, left_out = [], []
    for video in videos:
        reason = _unusable(video, settings)
        if reason:
            left_out.append(f"{video.name} ({reason})")
        else:
            kept.append(video)
    some = ", ".join(left_out[:3]) + (", .." if left_out[3:] else "")
    if not kept:
        raise BadDataset(f"training: none of the {len(left_out)} videos can be used: {some or 'there is none'}")
    if left_out:
        print(f"training: left out {len(left_out)} of {len(kept) + len(left_out)} videos: {some}", file=sys.stderr)
    return kept


def _unusable(video: Video, settings: TrainingSettings) -> str:
    """Why a video cannot be used; empty if it can."""
    if len(video) < settings.sampling.frames:
        return f"{len(video)} frames, a clip has {settings.sampling.frames}"
    height, width = video.size
    crop = settings.augmentation.crop
    return f"{width}x{height}, smaller than the crop of {crop}" if min(height, width) < crop else ""
