"""Data sets: reads each file, and calls the loaders, so that doctor and commands agree on what is missing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from tqdm import tqdm

from vos_shared.datasets import VideoSequence, davis2016, davis2017, load_dataset, youtube_objects, youtube_vos
from vos_shared.datasets.davis import ANNOTATIONS, Task, names_in_list, resolutions, split_lists
from vos_shared.doctor.report import (
    Picture,
    Report,
    compare_numbers,
    compare_sizes,
    look_at_frame,
    look_at_mask,
    note_strays,
    objects_text,
    read_all,
    sizes_text,
)
from vos_shared.folders import is_mask_file, mask_files, subfolders
from vos_shared.masks import ids_of
from vos_shared.tables import listed, ranges
from vos_shared.video_sources import frame_files

_HEADER: Final = ("sequence", "frames", "size", "masks", "objects")


def examine_youtube_vos(folder: Path, splits: Sequence[Path]) -> Report:
    """Examine splits of YouTube-VOS, each with its `meta.json`."""
    report = Report(f"YouTube-VOS folder {folder}", _HEADER)
    for split in splits:
        _examine_all(report, f"{split.name}/", split / "JPEGImages", split / "Annotations")
        report.attempt(partial(_load_youtube_vos, report, split))
    return report


def _load_youtube_vos(report: Report, split: Path) -> None:
    def compare(sequence: VideoSequence) -> None:
        report.notes.extend(sequence.compare_objects())

    for sequence in youtube_vos(split.parent, split.name):
        report.attempt(partial(compare, sequence))


def examine_youtube_objects(root: Path) -> Report:
    """Examine YouTube-Objects in the layout of `prepare_youtube_objects`."""
    report = Report(f"YouTube-Objects folder {root}", _HEADER)
    _examine_all(report, "Images/", root / "Images", root / "Labels")
    report.attempt(partial(youtube_objects, root))
    return report


def examine_dataset(name: str, root: Path, split: str | None = None) -> Report:
    """Examine a data set by name: read each frame and mask that its loader finds."""
    report = Report(f"{name} folder {root}", _HEADER)
    sequences: list[VideoSequence] = []
    report.attempt(lambda: sequences.extend(load_dataset(name, root, split)))
    for sequence in tqdm(sequences, desc=name, unit="sequence", disable=None, leave=False):
        report.attempt(partial(_read_sequence, report, sequence))
    return report


def _read_sequence(report: Report, sequence: VideoSequence) -> None:
    ids: set[int] = set()
    for name, _ in zip(sequence.frame_names, sequence.video, strict=True):
        mask = sequence.annotation(name)
        ids.update([] if mask is None else ids_of(mask))
    height, width = sequence.video.size
    report.rows.append(
        (
            sequence.name,
            str(len(sequence.frame_names)),
            f"{width}x{height}",
            str(len(sequence.annotations)),
            str(len(ids)),
        )
    )


def examine_davis(root: Path) -> Report:
    """Examine DAVIS or a data set of the same layout: all resolutions, lists and kinds of masks."""
    report = Report(f"DAVIS folder {root}", _HEADER)
    tasks = [task for task, name in ANNOTATIONS.items() if (root / name).is_dir()]
    if "semi-supervised" not in tasks:
        report.notes.append("no Annotations: for methods without prompt only")
    for resolution in resolutions(root) or [""]:
        for task in tasks or ["semi-supervised"]:
            where = f"{resolution}/" if resolution else ""
            where = where if task == "semi-supervised" else f"{ANNOTATIONS[task]}/{where}"
            frames, masks = root / "JPEGImages" / resolution, root / ANNOTATIONS[task] / resolution
            _examine_all(report, where, frames, masks, every_frame=True)
            _load_davis(
                report, root, resolution, task, {path.name for path in (*subfolders(frames), *subfolders(masks))}
            )
    return report


def _load_davis(report: Report, root: Path, resolution: str, task: Task, there: set[str]) -> None:
    """Load all lists, then the sequences that are in no list."""
    unlisted = set(there)
    lists = [path for path in split_lists(root) if path.parent.name not in set(resolutions(root)) - {resolution}]
    for path in lists:
        report.attempt(partial(_load_list, root, path, resolution, task), f"{path.parent.name}/{path.name}: ")
        report.attempt(partial(_strike_out, unlisted, path))
    if lists and unlisted:
        report.notes.append(f"in no list of ImageSets: {listed(sorted(unlisted))}")
    if unlisted or not lists:
        names = sorted(unlisted) or None
        report.attempt(partial(davis2017, root, names, resolution=resolution or None, task=task))


def _strike_out(names: set[str], path: Path) -> None:
    names.difference_update(names_in_list(path))


def _load_list(root: Path, path: Path, resolution: str, task: Task) -> None:
    if task == "semi-supervised" and path.parent.name in {"2016", resolution}:
        davis2016(root, path, resolution=resolution or None)
    else:
        davis2017(root, path, resolution=resolution or None, task=task)


def _examine_all(report: Report, where: str, frames: Path, masks: Path, *, every_frame: bool = False) -> None:
    """Examine the files of all sequences; with `every_frame`, note frames without a mask."""
    names = {path.name for folder in (frames, masks) for path in subfolders(folder)}
    for name in tqdm(sorted(names), desc=frames.name, unit="sequence", disable=None, leave=False):
        report.attempt(partial(_examine_sequence, report, f"{where}{name}", frames / name, masks / name, every_frame))


def _examine_sequence(report: Report, where: str, frames_folder: Path, masks_folder: Path, every_frame: bool) -> None:
    """Examine the files of a sequence.

    Raises:
        UserError: the order of the frames is not clear, or a frame has two masks.
    """
    frame_paths = frame_files(frames_folder) if frames_folder.is_dir() else []
    mask_paths = mask_files(masks_folder)
    frames = read_all(report, frame_paths, look_at_frame)
    masks = read_all(report, mask_paths.values(), look_at_mask)
    note_strays(report, frames_folder, set(frame_paths).__contains__)
    note_strays(report, masks_folder, is_mask_file)
    report.rows.append((where, str(len(frames)), sizes_text(frames), str(len(masks)), objects_text(masks)))
    compare_sizes(report, where, frames, masks)
    compare_numbers(report, where, masks)
    if masks and not any(mask.ids for mask in masks):
        report.problems.append(f"{where}: no mask holds any object")
    if every_frame:
        _note_masks(report, where, [path.stem for path in frame_paths], mask_paths, masks)


def _note_masks(
    report: Report, where: str, frames: Sequence[str], mask_names: Iterable[str], masks: Iterable[Picture]
) -> None:
    """Note masks of 0 and 255, and frames without a mask if more than one has a mask."""
    if any(mask.black_and_white for mask in masks):
        report.notes.append(f"{where}: masks of 0 and 255; read them as davis2016")
    there = set(mask_names)
    lacking = [name for name in frames if name not in there]
    if len(there) > 1 and lacking:
        report.notes.append(f"{where}: {len(lacking)} frames without mask: {ranges(lacking, frames)}")
