"""Events that the processes of a comparison send to their parent."""

from __future__ import annotations

from dataclasses import dataclass

from vos_shared.method import Method

LONGEST_REASON = 300
"""Longest reason of a failure in characters; it is shown in a line of the terminal and in a cell of the report."""


@dataclass(frozen=True)
class Loaded:
    """The method is ready."""


@dataclass(frozen=True)
class Began:
    """A sequence, or the import of an entry point, has begun."""

    name: str


@dataclass(frozen=True)
class FrameDone:
    """One more frame is segmented."""


@dataclass(frozen=True)
class Described:
    """An entry point was imported."""

    method: Method


@dataclass(frozen=True)
class Failed:
    """The process failed.

    Attributes:
        reason: one line.
        is_users: the user can fix it (`UserError`); it is not a defect.
    """

    reason: str
    is_users: bool


@dataclass(frozen=True)
class Finished:
    """The process has finished."""


Event = Loaded | Began | FrameDone | Described | Failed | Finished


def reason_of(error: BaseException) -> str:
    """The reason of a failure in one short line."""
    if isinstance(error, MemoryError):
        return "ran out of memory"
    try:
        text = str(error)
    except Exception:  # Making the text of an unknown exception may fail as well.
        text = ""
    line = one_line(text)
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def one_line(text: str) -> str:
    """The first line of a text, shortened, with ``?`` in place of characters that a terminal would act on."""
    first = next(iter(text[: 10 * LONGEST_REASON].strip().splitlines()), "")
    short = first if len(first) <= LONGEST_REASON else f"{first[:LONGEST_REASON]}…"
    return "".join(character if character.isprintable() else "?" for character in short)
