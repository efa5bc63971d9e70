"""Training videos of the published file lists, and which videos can be used."""

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
        file: the list; consecutive frames of one folder are a video.
        root: folder that the paths in it are relative to.

    Raises:
        BadDataset: the list is missing or empty, or names files that do not exist.
    """
    return [Video.from_files(files, name=files[0].parent.name) for files in read_video_list(file, root)]


class ListedFolders(Sequence[Video]):
    """The videos of a published list with one folder a line (Kinetics).

    There may be hundreds of thousands, so a folder is read only when a clip is drawn from it. As published, no video is
    left out: short videos repeat frames, small frames are scaled up to the crop.

    Args:
        file: the list.
        root: folder that the paths in it are relative to.

    Raises:
        BadDataset: the list is missing or empty, or names folders that do not exist.
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
        """Open a folder as a video.

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
                f"training: {error}; put its frames back and continue with --resume, or start another run without it, "
                "from --weights last.safetensors"
            ) from error


def video_names(videos: Sequence[Video]) -> list[str]:
    """Names of the videos, in order; does not read the folders of a long list."""
    return videos.names if isinstance(videos, ListedFolders) else [video.name for video in videos]


def usable(videos: Iterable[Video], settings: TrainingSettings) -> list[Video]:
    """Leave out videos that are too short or too small, and report them on one line.

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
        raise BadDataset(f"training: none of the {len(left_out)} videos can be used: {some or 'there are no videos'}")
    if left_out:
        print(f"training: left out {len(left_out)} of {len(kept) + len(left_out)} videos: {some}", file=sys.stderr)
    return kept


def _unusable(video: Video, settings: TrainingSettings) -> str:
    """The reason why a video cannot be used; empty if it can."""
    if len(video) < settings.sampling.frames:
        return f"{len(video)} frames, a clip has {settings.sampling.frames}"
    height, width = video.size
    crop = settings.augmentation.crop
    return f"{width}x{height}, smaller than the crop of {crop}" if min(height, width) < crop else ""
