"""What a data set or results folder holds, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from tqdm import tqdm

import vos_shared.datasets
from vos_shared.datasets import youtube_objects, youtube_vos
from vos_shared.datasets.davis import sequence_named_in
from vos_shared.errors import UserError
from vos_shared.files import read_json, read_text
from vos_shared.mask_files import OTHER_NUMBERS, read_file
from vos_shared.masks import describe_size, ids_of
from vos_shared.tables import ranges, text_table
from vos_shared.video_sources import frame_files, read_frame

T = TypeVar("T")


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
        parts = [self.title, text_table(self.header, self.rows), *(f"note: {note}" for note in self.notes)]
        count = len(self.problems)
        verdict = f"{count} problem{'s' if count > 1 else ''}:" if count else "no problems found"
        return "\n".join([*parts, verdict, *(f"- {problem}" for problem in self.problems)])


@dataclass(frozen=True)
class _Picture:
    """One file that could be read: its size, and for a mask its ids."""

    name: str
    size: tuple[int, ...]
    ids: tuple[int, ...] = ()
    black_and_white: bool = False
    by_colours: bool = False


def examine(folder: Path, sequences: Sequence[vos_shared.datasets.VideoSequence] | None = None) -> Report:
    """Read everything in a folder.

    Args:
        folder: a data set's (DAVIS, YouTube-VOS or one of its splits, YouTube-Objects), or results as
            ``<sequence>/<frame>.png``.
        sequences: what results should cover; without them results are only looked at for themselves.

    Raises:
        UserError: no such folder, or it is none of these.

    """
    if not folder.is_dir():
        raise UserError(f"no such folder: {folder}")
    if splits := [path for path in (folder, *_entries(folder)) if (path / "meta.json").is_file()]:
        return _examine_youtube_vos(folder, splits)
    if (folder / "JPEGImages").is_dir():
        return _examine_davis(folder)
    if (folder / "Images").is_dir() and (folder / "Labels").is_dir():
        return _examine_youtube_objects(folder)
    if any(path.is_dir() and any(path.glob("*.png")) for path in _entries(folder)):
        return _examine_results(folder, sequences)
    raise UserError(
        f"{folder} is neither a DAVIS folder (it has no JPEGImages) nor results (it has no <sequence>/<frame>.png), "
        "nor YouTube-VOS (no <split>/meta.json) or YouTube-Objects (no Images and Labels)"
    )


_DATASET_HEADER: Final = ("sequence", "frames", "size", "masks", "objects")


def _examine_youtube_vos(folder: Path, splits: Sequence[Path]) -> Report:
    report = Report(f"YouTube-VOS folder {folder}", _DATASET_HEADER)
    for split in splits:
        _examine_listed(report, split / "JPEGImages", split / "Annotations", split.name)
        _try_loading(report, partial(youtube_vos, split.parent, split.name))
    return report


def _examine_youtube_objects(root: Path) -> Report:
    report = Report(f"YouTube-Objects folder {root}", _DATASET_HEADER)
    _examine_listed(report, root / "Images", root / "Labels", "Images")
    _try_loading(report, partial(youtube_objects, root))
    return report


def _examine_listed(report: Report, frames: Path, masks: Path, title: str) -> None:
    """Sequences of a data set whose loader knows which there must be, and which frames have masks."""
    names = {path.name for folder in (frames, masks) for path in _entries(folder) if path.is_dir()}
    for name in tqdm(sorted(names), desc=title, unit="sequence", disable=None, leave=False):
        _examine_sequence(report, f"{title}/{name}", frames / name, masks / name)


def _try_loading(report: Report, load: Callable[[], object]) -> None:
    try:
        load()
    except UserError as error:
        report.problems.append(str(error))


def _examine_davis(root: Path) -> Report:
    report = Report(f"DAVIS folder {root}", _DATASET_HEADER)
    listed = _listed(root)
    found: set[str] = set()
    for resolution in _entries(root / "JPEGImages"):
        frames, masks = resolution, root / "Annotations" / resolution.name
        names = {path.name for folder in (frames, masks) for path in _entries(folder) if path.is_dir()}
        found |= names
        for name in tqdm(sorted(names), desc=resolution.name, unit="sequence", disable=None, leave=False):
            where = f"{resolution.name}/{name}"
            if any(mask.black_and_white for mask in _examine_sequence(report, where, frames / name, masks / name)):
                report.notes.append(f"{where}: masks of 0 and 255; read them as davis2016")
            _compare_names(report, where, frames / name, masks / name)
    for name, lists in sorted(listed.items()):
        if name not in found:
            report.problems.append(f"{', '.join(lists)}: sequence {name} is listed but is not there")
    if unlisted := sorted(found - listed.keys()):
        report.notes.append(f"in no list of ImageSets: {', '.join(unlisted)}")
    return report


def _examine_sequence(report: Report, where: str, frames_folder: Path, masks_folder: Path) -> list[_Picture]:
    """Look at each file by itself; returns the masks."""
    frame_paths, mask_paths = _frame_files(frames_folder), _mask_files(masks_folder)
    frames = _read_all(report, frame_paths, _read_frame)
    masks = _read_all(report, mask_paths, _read_mask)
    _strays(report, frames_folder, set(frame_paths).__contains__)
    _strays(report, masks_folder, lambda path: path.suffix == ".png")
    report.rows.append((where, str(len(frames)), _sizes(frames), str(len(masks)), _objects(masks)))
    _compare_sizes(report, where, frames, masks)
    _compare_numbers(report, where, masks)
    frame_names = {path.stem for path in frame_paths}
    if frame_names:
        strange = [path for path in mask_paths if path.stem not in frame_names]
        report.problems.extend(f"{path} belongs to no frame" for path in strange)
    if masks and not any(mask.ids for mask in masks):
        report.problems.append(f"{where}: no mask holds any object")
    return masks


def _compare_names(report: Report, where: str, frames_folder: Path, masks_folder: Path) -> None:
    """DAVIS has masks of all frames, or of the first."""
    frame_names = [path.stem for path in _frame_files(frames_folder)]
    mask_names = {path.stem for path in _mask_files(masks_folder)}
    if not frame_names or not mask_names:
        report.problems.append(f"{where} has no {'masks' if frame_names else 'frames'}")
    elif frame_names[0] not in mask_names:
        report.problems.append(f"{where}: the first frame, {frame_names[0]}, has no mask")
    elif 1 < len(mask_names) < len(frame_names):
        lacking = [name for name in frame_names if name not in mask_names]
        report.notes.append(f"{where}: {len(lacking)} frames without mask: {ranges(lacking, frame_names)}")


def _examine_results(root: Path, sequences: Sequence[vos_shared.datasets.VideoSequence] | None) -> Report:
    report = Report(f"results folder {root}", ("sequence", "masks", "size", "objects", "recorded"))
    found: dict[str, list[_Picture]] = {}
    folders = [path for path in _entries(root) if path.is_dir()]
    for folder in tqdm(folders, unit="sequence", disable=None, leave=False):
        masks = found[folder.name] = _read_all(report, _mask_files(folder), _read_mask)
        _strays(report, folder, lambda path: path.suffix == ".png")
        _compare_sizes(report, folder.name, [], masks)
        _compare_numbers(report, folder.name, masks)
        report.rows.append((folder.name, str(len(masks)), _sizes(masks), _objects(masks), _recorded(root, folder.name)))
    _strays(report, root, lambda path: path.is_dir() or path.suffix in {".mp4", ".json", ".csv", ".html"})
    if len({record.get("settings_hash") for record in _records(root)}) > 1:
        report.problems.append("the sequences were made with different settings; run the method again over all of them")
    unfinished = [path.name.rpartition(".")[0] for path in (root / ".partial").glob("*")]
    if unfinished:
        report.notes.append(f"being written, or begun by a run that was stopped: {', '.join(sorted(unfinished))}")
    if sequences is None:
        report.notes.append("add --root to compare it with a data set: missing frames, sizes, ids")
    else:
        _compare_with(report, root, found, sequences)
    return report


def _compare_with(
    report: Report,
    root: Path,
    found: dict[str, list[_Picture]],
    sequences: Sequence[vos_shared.datasets.VideoSequence],
) -> None:
    for sequence in sequences:
        names, masks = list(sequence.frame_names), found.pop(sequence.name, [])
        there = {path.stem for path in _mask_files(root / sequence.name)}
        if lacking := [name for name in names if name not in there]:
            report.problems.append(
                f"{sequence.name} lacks {len(lacking)} of {len(names)} masks: {ranges(lacking, names)}"
            )
        if surplus := sorted(there - set(names)):
            report.problems.append(f"{sequence.name}: masks for no frame of the data set: {', '.join(surplus)}")
        wrong = [mask.name for mask in masks if mask.size != sequence.video.size]
        if wrong:
            listed = ranges(wrong, [mask.name for mask in masks])
            report.problems.append(
                f"{sequence.name}: not {describe_size(sequence.video.size)} like the frames: {listed}"
            )
        strange = sorted({k for mask in masks for k in mask.ids}.difference(sequence.object_ids()))
        if strange:
            report.notes.append(f"{sequence.name}: ids that the data set does not have: {strange}")
    if found:
        report.notes.append(f"not in the data set's list: {', '.join(sorted(found))}")


def _read_all(report: Report, paths: Iterable[Path], read: Callable[[Path], _Picture]) -> list[_Picture]:
    """Read files on threads; each that cannot be read becomes a problem."""

    def attempt(path: Path) -> _Picture | UserError:
        try:
            return read(path)
        except UserError as error:
            return error

    with ThreadPoolExecutor() as executor:
        outcomes = list(executor.map(attempt, paths))
    report.problems.extend(str(outcome) for outcome in outcomes if isinstance(outcome, UserError))
    return [outcome for outcome in outcomes if isinstance(outcome, _Picture)]


def _read_frame(path: Path) -> _Picture:
    return _Picture(path.stem, read_frame(path).shape[:2])


def _read_mask(path: Path) -> _Picture:
    file = read_file(path)
    binary = bool(file.ids.any()) and file.is_black_and_white and file.colours.palette is None
    mask = file.checked(binary=binary)
    return _Picture(path.stem, mask.shape, tuple(ids_of(mask)), binary, file.by_colours)


def _compare_numbers(report: Report, where: str, masks: Sequence[_Picture]) -> None:
    if renumbered := [mask.name for mask in masks if mask.by_colours]:
        listed = ranges(renumbered, [mask.name for mask in masks])
        report.problems.append(f"{where} {listed}: {OTHER_NUMBERS}; other programs read those: write the masks again")


def _compare_sizes(report: Report, where: str, frames: Sequence[_Picture], masks: Sequence[_Picture]) -> None:
    pictures = [*frames, *masks]
    odd = [picture.name for picture in pictures if picture.size != pictures[0].size]
    if odd:
        listed = ", ".join(dict.fromkeys(odd))
        report.problems.append(f"{where}: {pictures[0].name} is {describe_size(pictures[0].size)}, but not {listed}")


def _strays(report: Report, folder: Path, belongs: Callable[[Path], bool]) -> None:
    report.problems.extend(f"{path} does not belong here" for path in _entries(folder) if not belongs(path))


def _listed(root: Path) -> dict[str, list[str]]:
    """Sequences named in the lists of `ImageSets`, with the lists that name them."""
    listed: dict[str, list[str]] = {}
    for path in sorted(root.glob("ImageSets/*/*.txt")):
        lines = read_text(path, errors="replace").splitlines()
        for name in dict.fromkeys(sequence_named_in(line.strip()) for line in lines if line.strip()):
            listed.setdefault(name, []).append("/".join(path.parts[-2:]))
    return listed


def _recorded(root: Path, sequence: str) -> str:
    record = _record(root / ".manifest" / f"{sequence}.json")
    return str(record.get("finished") or "unfinished") if record else "-"


def _records(root: Path) -> list[dict[str, Any]]:
    """Of all sequences whose folder is there."""
    paths = [path for path in (root / ".manifest").glob("*.json") if (root / path.stem).is_dir()]
    return [record for path in paths if (record := _record(path))]


def _record(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _entries(folder: Path) -> list[Path]:
    """What is in a folder, hidden things left out; nothing if it is not there."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".")) if folder.is_dir() else []


def _frame_files(folder: Path) -> list[Path]:
    return frame_files(folder) if folder.is_dir() else []


def _mask_files(folder: Path) -> list[Path]:
    return [path for path in _entries(folder) if path.suffix == ".png"]


def _sizes(pictures: Iterable[_Picture]) -> str:
    return ", ".join(f"{size[1]}x{size[0]}" for size in dict.fromkeys(picture.size for picture in pictures)) or "-"


def _objects(masks: Iterable[_Picture]) -> str:
    return str(len({k for mask in masks for k in mask.ids}))
