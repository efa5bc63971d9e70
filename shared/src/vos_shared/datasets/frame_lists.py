"""The lists of frames that official programs read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from vos_shared.datasets.sequence import VideoSequence
from vos_shared.errors import BadDataset
from vos_shared.files import read_text
from vos_shared.tables import listed
from vos_shared.video import Video


def read_video_list(path: str | Path, root: str | Path) -> list[list[Path]]:
    """Read a list with one frame a line; a second column is ignored.

    Consecutive lines whose frames are in the same folder are a video.

    Args:
        path: the list.
        root: folder to which the paths are relative; a leading ``/`` is ignored.

    Returns:
        The frame files of each video, in the order of the list.

    Raises:
        BadDataset: the list is missing or empty, or frames are missing.
    """
    files = [Path(root) / entry for entry in _entries(Path(path))]
    _require(files, Path(path), "frames", Path.is_file)
    return [list(video) for _, video in groupby(files, key=lambda file: file.parent)]


def read_folder_list(path: str | Path, root: str | Path) -> list[Path]:
    """Read a list with one folder of frames a line; the folders are not read.

    Raises:
        BadDataset: as in `read_video_list`.
    """
    folders = [Path(root) / entry for entry in _entries(Path(path))]
    _require(folders, Path(path), "folders", Path.is_dir)
    return folders


def read_clip_list(path: str | Path, root: str | Path) -> list[list[Path]]:
    """Read a list with one video a line: its folder, then the names of its frames.

    Args:
        path: the list.
        root: folder to which the paths are relative; a leading ``/`` is ignored.

    Returns:
        The frame files of each video, in the order of the list.

    Raises:
        BadDataset: the list is missing or empty, a line has no frame, or frames are missing.
    """
    videos = []
    for line in _lines(Path(path)):
        folder, *names = line.split()
        if not names:
            raise BadDataset(
                f"file list {path}: {line.strip()!r} names no frame; a line is '<folder> <frame> <frame> ..'"
            )
        videos.append([Path(root, folder.lstrip("/"), name) for name in names])
    _require([file for video in videos for file in video], Path(path), "frames", Path.is_file)
    return videos


@dataclass(frozen=True)
class ListedSequence:
    """A sequence of an inference list.

    Attributes:
        sequence: all frames, with the masks that exist.
        wanted: names of the frames whose masks are to be written.
    """

    sequence: VideoSequence
    wanted: frozenset[str]


def read_inference_list(path: str | Path, root: str | Path) -> list[ListedSequence]:
    """Read a list with one frame a line: ``flag image mask``.

    The flag is 0 if no mask is to be written. The mask may be left out or missing, since YouTube-VOS has masks only of
    frames where an object appears. Consecutive lines whose images are in the same folder are a sequence of its name.

    Args:
        path: the list.
        root: folder to which the paths are relative; a leading ``/`` is ignored.

    Raises:
        BadDataset: the list is missing or empty, a line is invalid, images are missing, or two sequences have the same
            name.
    """
    path, root = Path(path), Path(root)
    rows = [_inference_row(line, path) for line in _lines(path)]
    _require([root / image for _, image, _ in rows], path, "frames", Path.is_file)
    found = []
    for folder, members in groupby(rows, key=lambda row: (root / row[1]).parent):
        frames = list(members)
        masks = {Path(image).stem: root / mask for _, image, mask in frames if mask and (root / mask).is_file()}
        video = Video.from_files([root / image for _, image, _ in frames], name=folder.name)
        wanted = frozenset(Path(image).stem for flag, image, _ in frames if flag)
        found.append(ListedSequence(VideoSequence(folder.name, video, masks), wanted))
    names = [listed.sequence.name for listed in found]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise BadDataset(
            f"file list {path} names sequence {', '.join(doubled)} more than once; keep its lines together"
        )
    return found


def _inference_row(line: str, path: Path) -> tuple[bool, str, str]:
    """Whether the mask is to be written, the image, and the mask or an empty string."""
    flag, *files = line.split()
    if not flag.isdecimal() or not 1 <= len(files) <= 2:
        raise BadDataset(f"file list {path}: {line.strip()!r} is not 'flag image mask', with flag 0 or 1")
    image, mask = (file.lstrip("/") for file in (*files, "")[:2])
    return int(flag) != 0, image, mask


def _entries(path: Path) -> list[str]:
    return [line.split()[0].lstrip("/") for line in _lines(path)]


def _lines(path: Path) -> list[str]:
    try:
        lines = read_text(path).splitlines()
    except (OSError, UnicodeDecodeError) as reason:
        raise BadDataset(f"file list {path} cannot be read: {reason}") from reason
    lines = [line for line in lines if line.strip()]
    if not lines:
        raise BadDataset(f"file list {path} is empty; it must name one frame or folder a line")
    return lines


def _require(paths: list[Path], path: Path, what: str, exists: Callable[[Path], bool]) -> None:
    missing = [str(entry) for entry in paths if not _is_there(entry, exists)]
    if missing:
        raise BadDataset(
            f"file list {path} names {len(paths)} {what}, {len(missing)} of them are not there: "
            f"{listed(missing, most=3)}; are its paths relative to the root that was given?"
        )


def _is_there(path: Path, exists: Callable[[Path], bool]) -> bool:
    try:
        return exists(path)
    except OSError:  # The name is too long.
        return False
