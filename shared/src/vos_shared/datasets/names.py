"""Names of sequences: the lists they come in, and the choice of some of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from vos_shared.errors import BadDataset
from vos_shared.files import read_text
from vos_shared.tables import listed

_LONGEST_NAME: Final = 255
"""Bytes of a file's name; no file system that we know takes more."""

Split = str | Path | Iterable[str]
"""Name of a list of sequences in the data set, path of a list file, or the sequence names themselves."""


def read_lines(path: Path) -> list[str]:
    """The lines of a list, without white space around them; empty ones are left out.

    Raises:
        BadDataset: it cannot be read as text.
    """
    try:
        lines = read_text(path, "utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise BadDataset(f"{path} is no text file; a split lists one sequence name a line") from None
    except OSError as reason:
        raise BadDataset(f"list of sequences {path} cannot be read: {reason.strerror}") from None
    return [line.strip() for line in lines if line.strip()]


def choose(names: Iterable[str], where: str, wanted: Iterable[str] | None) -> list[str]:
    """Names without doubles.

    Args:
        names: what a list holds.
        where: the list, for messages.
        wanted: only these, in this order; by default all.

    Raises:
        BadDataset: there is no name, one that is not a folder name, or one is wanted that is not there.
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
    """Names become folders and files below the root and below results: they must not lead out of there.

    Raises:
        BadDataset: with all that would.
    """
    marks = ("/", "\\", "\0", "..")
    every = list(names)
    bad = [name for name in every if name in {"", "."} or any(mark in name for mark in marks)]
    if bad:
        raise BadDataset(f"{where} holds {listed(map(repr, bad))}; {what}, not a path")
    long = [name for name in every if len(os.fsencode(name)) > _LONGEST_NAME]
    if long:
        raise BadDataset(f"{where} holds {listed(long)}; {what}, which has at most {_LONGEST_NAME} bytes")


def refuse_missing(root: Path, missing: Sequence[str]) -> None:
    """Refuse a data set that is not whole.

    Raises:
        BadDataset: with what is missing, if anything is.
    """
    if missing:
        raise BadDataset(f"{root} lacks {listed(missing, '; ')}")


def strange_masks(masks: Iterable[str], frames: Iterable[Path]) -> list[str]:
    """Names of masks that belong to no frame."""
    return sorted(set(masks) - {path.stem for path in frames})
