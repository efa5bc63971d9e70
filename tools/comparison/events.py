"""What the processes of a comparison tell the one that started them."""

from __future__ import annotations

from dataclasses import dataclass

from vos_shared.method import Method

LONGEST_REASON = 300
"""Characters of a failure's reason; it stands in a line of the terminal and in a cell of the report."""


@dataclass(frozen=True)
class Loaded:
    """The method is ready."""


@dataclass(frozen=True)
class Began:
    """A sequence, or the import of an entry point, was begun."""

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
    """The process cannot go on.

    Attributes:
        reason: one line.
        is_users: something the user can mend (`UserError`), not a defect.
    """

    reason: str
    is_users: bool


@dataclass(frozen=True)
class Finished:
    """All is done."""


Event = Loaded | Began | FrameDone | Described | Failed | Finished


def reason_of(error: BaseException) -> str:
    """Why something failed, in one short line."""
    if isinstance(error, MemoryError):
        return "ran out of memory"
    try:
        text = str(error)
    except Exception:  # The text of a stranger's exception may fail as well.
        text = ""
    line = one_line(text)
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def one_line(text: str) -> str:
    """The first line of a text, shortened, with ``?`` in place of characters that a terminal would act on."""
    first = next(iter(text[: 10 * LONGEST_REASON].strip().splitlines()), "")
    short = first if len(first) <= LONGEST_REASON else f"{first[:LONGEST_REASON]}…"
    return "".join(character if character.isprintable() else "?" for character in short)
