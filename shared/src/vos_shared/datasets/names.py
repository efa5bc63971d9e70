"""Names of sequences: reading lists of them, choosing and checking them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vos_shared.errors import BadDataset
from vos_shared.files import read_text
from vos_shared.tables import listed
from vos_shared.video_sources import frame_files

if TYPE_CHECKING:
    from vos_shared.datasets.sequence import VideoSequence

_LONGEST_NAME: Final = 255
"""Longest file name in bytes on common file systems."""

Split = str | Path | Iterable[str]
"""Name of a list of sequences in the data set, path of a list, or the names of the sequences."""


def read_lines(path: Path) -> list[str]:
    """The lines of a list that are not empty, stripped of white space.

    Raises:
        BadDataset: the list cannot be read as text.
    """
    try:
        lines = read_text(path).splitlines()
    except UnicodeDecodeError:
        raise BadDataset(f"{path} is not a text file; a split lists one sequence name a line") from None
    except OSError as reason:
        raise BadDataset(f"list of sequences {path} cannot be read: {reason.strerror}") from None
    return [line.strip() for line in lines if line.strip()]


def choose(names: Iterable[str], where: str, wanted: Iterable[str] | None) -> list[str]:
    """Choose names from a list; duplicates are dropped.

    Args:
        names: names in the list.
        where: the list, for messages.
        wanted: names to choose, in this order; by default all.

    Raises:
        BadDataset: the list is empty, a name is not a folder name, or a wanted name is not in the list.
    """
    names = list(dict.fromkeys(names))
    if not names:
        raise BadDataset(f"{where} names no sequence")
    refuse_paths(names, where)
    if wanted is None:
        return names
    chosen = list(dict.fromkeys(wanted))
    refuse_paths(chosen, "the sequences wanted")
    known = set(names)
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise BadDataset(f"{where} does not hold {listed(unknown)}; it holds {listed(names)}")
    return chosen


def refuse_paths(names: Iterable[str], where: str, what: str = "a sequence is a folder name") -> None:
    """Check that names cannot lead out of the data set or the results: they become names of folders and files.

    Raises:
        BadDataset: names that hold a path or are too long.
    """
    marks = ("/", "\\", "\0", "..")
    every = list(names)
    bad = [name for name in every if name in {"", "."} or any(mark in name for mark in marks)]
    if bad:
        raise BadDataset(f"{where} holds {listed(map(repr, bad))}; {what}, not a path")
    long = [name for name in every if len(os.fsencode(name)) > _LONGEST_NAME]
    if long:
        raise BadDataset(f"{where} holds {listed(long)}; {what}, which has at most {_LONGEST_NAME} bytes")


def load_all(
    root: Path, names: Iterable[str], load: Callable[[str, list[str]], VideoSequence | None]
) -> list[VideoSequence]:
    """Load sequences, or raise an error that names everything that is missing.

    Args:
        root: the data set, for the message.
        names: names of the sequences.
        load: loads a sequence, or appends what is missing to the list and returns None.

    Raises:
        BadDataset: something is missing.
    """
    missing: list[str] = []
    loaded = [sequence for name in names if (sequence := load(name, missing)) is not None]
    refuse_missing(root, missing)
    return loaded


def refuse_missing(root: Path, missing: Sequence[str]) -> None:
    """Raise `BadDataset` if anything is missing in the data set `root`."""
    if missing:
        raise BadDataset(f"{root} lacks {listed(missing, '; ')}")


def frames_in(folder: Path, missing: list[str], what: str = "frames") -> list[Path]:
    """The frames of a sequence in natural order; if there are none, notes so in `missing`."""
    frames = frame_files(folder) if folder.is_dir() else []
    if not frames:
        missing.append(f"{what} of {folder.name} ({folder})")
    return frames


def strange_masks(masks: Iterable[str], frames: Iterable[Path]) -> list[str]:
    """Sorted names of masks without a frame."""
    return sorted(set(masks) - {path.stem for path in frames})
