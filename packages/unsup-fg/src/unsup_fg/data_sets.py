"""Data sets of unlabelled videos: how a run finds them, and which of their frames it uses."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from unsup_fg.videopca import SHORTEST_SHOT
from vos_shared.datasets import VideoSequence
from vos_shared.errors import UserError
from vos_shared.video import Video
from vos_shared.video_sources import frame_files, matching_paths


@dataclass(frozen=True)
class DataSet:
    """Videos that compete with each other in the selection.

    Attributes:
        name: its folder name in the output.
        sequences: the videos, whose names differ in the whole run.
    """

    name: str
    sequences: tuple[VideoSequence, ...]


def found_sets(places: Sequence[Path], output: Path, shorter_side: int) -> tuple[list[DataSet], dict[str, str]]:
    """Find the videos of all data sets, and give them names that differ.

    Args:
        places: data sets: folders of videos, videos or patterns, see `vos_shared.training.videos.found_videos`.
        output: folder of the run, where video files are decoded into.
        shorter_side: largest shorter side of decoded frames, in pixels.

    Returns:
        The data sets, and the videos that cannot be read, by name, with the reasons.

    Raises:
        BadDataset: a place does not exist or holds no video.
    """
    from vos_shared.training.videos import found_videos

    unreadable: dict[str, str] = {}

    def note(path: Path, why: UserError) -> None:
        unreadable[path.name] = str(why)

    found = [found_videos([place], output, shorter_side, note) for place in places]
    set_names, names = _Names(), _Names()
    sets = [
        DataSet(set_names(place.name), tuple(VideoSequence(names(video.name), video, {}) for video in videos))
        for place, videos in zip(places, found, strict=True)
    ]
    return sets, unreadable


def fingerprints(sets: Sequence[DataSet]) -> dict[str, dict[str, str]]:
    """Hashes of all videos, by data set and name."""
    return {data.name: {one.name: one.video.fingerprint() for one in data.sequences} for data in sets}


def all_sequences(sets: Sequence[DataSet]) -> list[VideoSequence]:
    """All videos of data sets."""
    return [item for data in sets for item in data.sequences]


def frame_count(sequences: Iterable[VideoSequence]) -> int:
    """Number of frames of videos."""
    return sum(len(item.frame_names) for item in sequences)


def too_short(sets: Sequence[DataSet]) -> dict[str, str]:
    """The videos that are too short for VideoPCA, by name, and why."""
    return {
        item.name: f"{len(item.frame_names)} frames, less than {SHORTEST_SHOT}"
        for item in all_sequences(sets)
        if len(item.frame_names) < SHORTEST_SHOT
    }


def without(data: DataSet, names: Container[str]) -> DataSet:
    """Leave out the videos of some names."""
    return DataSet(data.name, tuple(item for item in data.sequences if item.name not in names))


def thinned(data: DataSet, every: int) -> DataSet:
    """Keep every so many frames of each video."""
    return DataSet(
        data.name, tuple(VideoSequence(one.name, _thinned_video(one.video, every), {}) for one in data.sequences)
    )


def _thinned_video(video: Video, every: int) -> Video:
    files = frame_files(Path(video.origin)) if Path(video.origin).is_dir() else matching_paths(video.origin)
    return Video.from_files(files[::every], name=video.name, origin=video.origin)


def mask_names(data: DataSet) -> list[str]:
    """Names of the masks of all frames, ``<sequence>/<frame>.png``."""
    return [f"{item.name}/{name}.png" for item in data.sequences for name in item.frame_names]


class _Names:
    """Makes names different: x, x-2, x-3."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def __call__(self, wanted: str) -> str:
        name, count = wanted, 1
        while name in self._taken:
            count += 1
            name = f"{wanted}-{count}"
        self._taken.add(name)
        return name
