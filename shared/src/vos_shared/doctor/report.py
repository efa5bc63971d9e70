"""The doctor's report, and reading of files for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from vos_shared.errors import UserError
from vos_shared.mask_files import OTHER_NUMBERS, read_file
from vos_shared.masks import describe_size, ids_of
from vos_shared.tables import listed, ranges, text_table
from vos_shared.terminal import escaped
from vos_shared.video_sources import read_frame

_MOST_LINES: Final = 100
"""Largest number of notes, and of problems, that are shown; more have a common cause."""


@dataclass
class Report:
    """The findings.

    Attributes:
        title: kind and path of the folder.
        header: header of the table.
        rows: rows of the table, one for each sequence.
        notes: remarks that are no problems, a line each.
        problems: problems, a line each.
    """

    title: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        count = len(self.problems)
        verdict = f"{count} problem{'s' if count > 1 else ''}:" if count else "no problems found"
        parts = [escaped(self.title), text_table(self.header, self.rows), *_some("note: ", self.notes)]
        return "\n".join([*parts, verdict, *_some("- ", self.problems)])

    def attempt(self, work: Callable[[], object], before: str = "") -> None:
        """Do what a command would do; a `UserError` becomes a problem (only once)."""
        try:
            work()
        except UserError as error:
            if (problem := f"{before}{error}") not in self.problems:
                self.problems.append(problem)


def _some(mark: str, lines: Sequence[str]) -> list[str]:
    more = [f"and {len(lines) - _MOST_LINES:,} more"] if len(lines) > _MOST_LINES else []
    return [f"{mark}{escaped(line)}" for line in [*lines[:_MOST_LINES], *more]]


@dataclass(frozen=True)
class Picture:
    """A readable file: its size and, for a mask, its ids."""

    name: str
    size: tuple[int, ...]
    ids: tuple[int, ...] = ()
    black_and_white: bool = False
    by_colours: bool = False


def look_at_frame(path: Path) -> Picture:
    """Read a frame; raises `BadVideo` if it cannot be read."""
    return Picture(path.stem, read_frame(path).shape[:2])


def look_at_mask(path: Path) -> Picture:
    """Read a mask of ids, or in black and white; raises `BadMask` if it cannot be read."""
    file = read_file(path)
    binary = bool(file.ids.any()) and file.is_black_and_white and file.colours.palette is None
    mask = file.checked(binary=binary)
    return Picture(path.stem, mask.shape, tuple(ids_of(mask)), binary, file.by_colours)


def read_all(report: Report, paths: Iterable[Path], read: Callable[[Path], Picture]) -> list[Picture]:
    """Read files on threads; a file that cannot be read becomes a problem."""

    def attempt(path: Path) -> Picture | UserError:
        try:
            return read(path)
        except UserError as error:
            return error

    with ThreadPoolExecutor() as executor:
        outcomes = list(executor.map(attempt, paths))
    report.problems.extend(str(outcome) for outcome in outcomes if isinstance(outcome, UserError))
    return [outcome for outcome in outcomes if isinstance(outcome, Picture)]


def compare_numbers(report: Report, where: str, masks: Sequence[Picture]) -> None:
    """Report masks whose colours, not numbers, are the ids, since other programs read the numbers."""
    if renumbered := [mask.name for mask in masks if mask.by_colours]:
        names = ranges(renumbered, [mask.name for mask in masks])
        report.problems.append(f"{where} {names}: {OTHER_NUMBERS}; other programs read those: write the masks again")


def compare_sizes(report: Report, where: str, frames: Sequence[Picture], masks: Sequence[Picture]) -> None:
    """Report pictures of a sequence that differ in size from the first."""
    pictures = [*frames, *masks]
    odd = [picture.name for picture in pictures if picture.size != pictures[0].size]
    if odd:
        names = listed(dict.fromkeys(odd))
        report.problems.append(f"{where}: {pictures[0].name} is {describe_size(pictures[0].size)}, but not {names}")


def note_strays(report: Report, folder: Path, belongs: Callable[[Path], bool]) -> None:
    """Note files that no command reads, except hidden ones."""
    report.notes.extend(f"{path} does not belong here; it is not read" for path in entries(folder) if not belongs(path))


def entries(folder: Path) -> list[Path]:
    """Sorted content of a folder without hidden files; empty if there is no folder."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".")) if folder.is_dir() else []


def sizes_text(pictures: Iterable[Picture]) -> str:
    """The sizes that occur, for the table."""
    return listed(f"{size[1]}x{size[0]}" for size in dict.fromkeys(picture.size for picture in pictures)) or "-"


def objects_text(masks: Iterable[Picture]) -> str:
    """The number of objects, for the table."""
    return str(len({k for mask in masks for k in mask.ids}))
