"""Training videos from folders and video files."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from PIL import Image
from tqdm import tqdm

from vos_shared.errors import BadDataset, BadVideo
from vos_shared.method import Frame
from vos_shared.results import partial_folder
from vos_shared.video import Video
from vos_shared.video_sources import FRAME_SUFFIXES, frame_files, matching_paths, natural_key

VIDEO_SUFFIXES: Final = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".webm"})
JPEG_QUALITY: Final = 95

Failed = Callable[[Path, BadVideo], object]
"""Called with a video that cannot be read, and with the error."""


def found_videos(places: Sequence[Path], output: Path, longest: int, failed: Failed | None = None) -> list[Video]:
    """Find all videos; each video file is decoded once into a cache of frames.

    Args:
        places: folders of videos (video files and folders of frames), folders of frames, video files, or glob patterns.
            In a folder with video files, single images are ignored.
        output: folder of the run; the cache is its folder ``frames``, and patterns do not match inside it.
        longest: largest length of the shorter side of cached frames, in pixels; larger frames are scaled down.
        failed: called with each video that cannot be opened or decoded, and with the error; None raises the error.

    Raises:
        BadDataset: a place does not exist or holds no video.
        BadVideo: a video file is damaged.
    """
    sources = [source for place in places for source in _sources_at(place, output)]
    cache = output / "frames"
    files = [source for source in sources if source.is_file()]
    with tqdm(total=len(files), desc="decoding", unit="video", disable=None if files else True) as bar:
        return list(_opened(sources, cache, longest, bar, failed))


def _opened(
    sources: Iterable[Path], cache: Path, longest: int, bar: tqdm[object], failed: Failed | None
) -> Iterator[Video]:
    for source in sources:
        try:
            yield _open(source, cache, longest, bar)
        except BadVideo as reason:
            if failed is None:
                raise
            failed(source, reason)


def _sources_at(place: Path, output: Path) -> list[Path]:
    """Video files, folders of frames and patterns of frames, in natural order."""
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
    return sorted(videos, key=natural_key)


def _sources_of_pattern(pattern: Path, output: Path) -> list[Path]:
    """A pattern that matches frames is one video; any other pattern stands for the places that it matches."""
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
    """Write the frames to a folder, which appears when it is complete."""
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
