"""What the doctor finds, and how it looks at files."""

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
"""Notes, or problems, that are shown; a folder with more has one cause."""


@dataclass
class Report:
    """The findings.

    Attributes:
        title: what the folder is.
        header: of the table.
        rows: of the table, one a sequence.
        notes: what is worth knowing and not wrong.
        problems: what is wrong, a line each.

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
        """Do what a command would do; what the user must mend becomes a problem, once."""
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
    """One file that could be read: its size, and for a mask its ids."""

    name: str
    size: tuple[int, ...]
    ids: tuple[int, ...] = ()
    black_and_white: bool = False
    by_colours: bool = False


def look_at_frame(path: Path) -> Picture:
    """Read a frame.

    Raises:
        BadVideo: it cannot be read.
    """
    return Picture(path.stem, read_frame(path).shape[:2])


def look_at_mask(path: Path) -> Picture:
    """Read a mask of ids, or of black and white.

    Raises:
        BadMask: it cannot be read.
    """
    file = read_file(path)
    binary = bool(file.ids.any()) and file.is_black_and_white and file.colours.palette is None
    mask = file.checked(binary=binary)
    return Picture(path.stem, mask.shape, tuple(ids_of(mask)), binary, file.by_colours)


def read_all(report: Report, paths: Iterable[Path], read: Callable[[Path], Picture]) -> list[Picture]:
    """Read files on threads; each that cannot be read becomes a problem."""

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
    """Masks that are read by their colours have other numbers, which other programs read."""
    if renumbered := [mask.name for mask in masks if mask.by_colours]:
        names = ranges(renumbered, [mask.name for mask in masks])
        report.problems.append(f"{where} {names}: {OTHER_NUMBERS}; other programs read those: write the masks again")


def compare_sizes(report: Report, where: str, frames: Sequence[Picture], masks: Sequence[Picture]) -> None:
    """All pictures of a sequence must be of one size."""
    pictures = [*frames, *masks]
    odd = [picture.name for picture in pictures if picture.size != pictures[0].size]
    if odd:
        names = listed(dict.fromkeys(odd))
        report.problems.append(f"{where}: {pictures[0].name} is {describe_size(pictures[0].size)}, but not {names}")


def note_strays(report: Report, folder: Path, belongs: Callable[[Path], bool]) -> None:
    """Name what no command reads; hidden things do not count."""
    report.notes.extend(f"{path} does not belong here; it is not read" for path in entries(folder) if not belongs(path))


def entries(folder: Path) -> list[Path]:
    """What is in a folder, hidden things left out; nothing if it is not there."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".")) if folder.is_dir() else []


def sizes_text(pictures: Iterable[Picture]) -> str:
    """All sizes that occur, for the table."""
    return listed(f"{size[1]}x{size[0]}" for size in dict.fromkeys(picture.size for picture in pictures)) or "-"


def objects_text(masks: Iterable[Picture]) -> str:
    """The number of objects, for the table."""
    return str(len({k for mask in masks for k in mask.ids}))
