"""Where training videos come from: the published file lists, or any folders and video files."""

from __future__ import annotations

import glob
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, overload

from PIL import Image
from tqdm import tqdm

from dense_ulearn.presets import TrainingSettings
from vos_shared.datasets.frame_lists import read_folder_list, read_video_list
from vos_shared.errors import BadDataset, BadVideo
from vos_shared.method import Frame
from vos_shared.results import partial_folder
from vos_shared.video import Video
from vos_shared.video_sources import FRAME_SUFFIXES, frame_files, matching_paths, naturally_sorted

VIDEO_SUFFIXES: Final = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".webm"})
JPEG_QUALITY: Final = 95


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


def found_videos(places: Sequence[Path], output: Path, longest: int) -> list[Video]:
    """All videos at some places; video files are decoded once into frames.

    Args:
        places: folders of videos (video files and folders of frames), folders of frames, video files, or patterns. In a
            folder with video files, single images are not frames.
        output: folder of the run, which is not a video; the frames of video files go to ``frames`` in it.
        longest: length that the shorter side of cached frames is cut down to, in pixels; training needs no more.

    Raises:
        BadDataset: a place does not exist or holds no video.
        BadVideo: a video file is damaged.
    """
    sources = [source for place in places for source in _sources_at(place, output)]
    cache = output / "frames"
    files = [source for source in sources if source.is_file()]
    with tqdm(total=len(files), desc="decoding", unit="video", disable=None if files else True) as bar:
        return [_open(source, cache, longest, bar) for source in sources]


def _sources_at(place: Path, output: Path) -> list[Path]:
    """Video files, folders of frames and patterns of frames at a place, in natural order."""
    if not place.exists():
        return _sources_of_pattern(place, output)
    if place.is_file():
        return [place]
    inside = [path for path in place.iterdir() if not path.name.startswith(".")]
    files = [path for path in inside if path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES]
    if not files and frame_files(place):
        return [place]
    videos = [*files, *(path for path in inside if path.is_dir() and frame_files(path))]
    if not videos:
        raise BadDataset(
            f"training: {place} holds no videos; it must contain video files ({', '.join(sorted(VIDEO_SUFFIXES))}) "
            "or folders of frames"
        )
    return naturally_sorted(videos)


def _sources_of_pattern(pattern: Path, output: Path) -> list[Path]:
    """A pattern of frames is one video; other patterns are the places that they match, but for the run's own folder."""
    if not glob.has_magic(str(pattern)):
        raise BadDataset(f"training: {pattern} does not exist; give a folder of videos")
    places = [place for place in matching_paths(pattern) if not place.resolve().is_relative_to(output.resolve())]
    if not places:
        raise BadDataset(f"training: nothing matches {pattern}; give a folder of videos")
    if all(place.suffix.lower() in FRAME_SUFFIXES for place in places):
        return [pattern]
    return [source for place in places for source in _sources_at(place, output)]


def _open(source: Path, cache: Path, longest: int, bar: tqdm[object]) -> Video:
    video = Video.open(source)
    if not source.is_file():
        return video
    frames = cache / f"{source.stem}-{video.fingerprint()[:8]}-{longest}"
    if not frames.is_dir():
        _decode(video, frames, longest)
    bar.update()
    return Video.open(frames, name=source.stem)


def _decode(video: Video, frames: Path, longest: int) -> None:
    """Write the frames to a folder that appears when all of them are there."""
    with partial_folder(frames.parent, frames.name) as folder:
        for index, frame in enumerate(video):
            _shrunk(frame, longest).save(folder / f"{index:05d}.jpg", quality=JPEG_QUALITY)
        try:
            folder.rename(frames)
        except OSError:
            if not frames.is_dir():  # Another process has decoded the same video.
                raise


def _shrunk(frame: Frame, longest: int) -> Image.Image:
    image = Image.fromarray(frame)
    scale = longest / min(image.size)
    if scale >= 1:
        return image
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)


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
