"""The file lists with which official training programs name their frames."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from pathlib import Path

from vos_shared.errors import BadDataset
from vos_shared.video_sources import frame_files


def read_video_list(path: str | Path, root: str | Path) -> list[list[Path]]:
    """Read a list with one frame a line.

    A second column, divided by white space, is ignored. Neighbouring lines whose frames lie in one folder are a video.

    Args:
        path: the list.
        root: what the paths in it are relative to; a leading ``/`` in them does not matter.

    Returns:
        The frame files of each video, in the order of the list.

    Raises:
        BadDataset: no such list, an empty one, or one that names files which are not there.

    """
    files = [Path(root) / entry for entry in _entries(Path(path))]
    _require(files, Path(path), "frames", Path.is_file)
    return [list(video) for _, video in groupby(files, key=lambda file: file.parent)]


def read_folder_list(path: str | Path, root: str | Path) -> list[list[Path]]:
    """Read a list with one folder of frames a line; the frames of each in natural order.

    Raises:
        BadDataset: as in `read_video_list`.

    """
    folders = [Path(root) / entry for entry in _entries(Path(path))]
    _require(folders, Path(path), "folders", Path.is_dir)
    return [frame_files(folder) for folder in folders]


def _entries(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as reason:
        raise BadDataset(f"file list {path} cannot be read: {reason}") from reason
    entries = [line.split()[0].lstrip("/") for line in lines if line.strip()]
    if not entries:
        raise BadDataset(f"file list {path} is empty; it must name one frame or folder a line")
    return entries


def _require(paths: list[Path], path: Path, what: str, exists: Callable[[Path], bool]) -> None:
    missing = [str(entry) for entry in paths if not exists(entry)]
    if missing:
        some = ", ".join(missing[:3]) + (", .." if missing[3:] else "")
        raise BadDataset(
            f"file list {path} names {len(paths)} {what}, {len(missing)} of them are not there: {some}; "
            "are its paths relative to the root that was given?"
        )
