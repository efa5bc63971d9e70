"""Results folders: the masks, their records, and whether they cover a data set."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from tqdm import tqdm

import vos_shared.datasets
from vos_shared.doctor.report import (
    Picture,
    Report,
    compare_numbers,
    compare_sizes,
    look_at_mask,
    note_strays,
    objects_text,
    read_all,
    sizes_text,
)
from vos_shared.folders import is_mask_file, mask_files, subfolders
from vos_shared.masks import describe_size
from vos_shared.results import read_record
from vos_shared.tables import listed, ranges


def examine_results(root: Path, sequences: Sequence[vos_shared.datasets.VideoSequence] | None) -> Report:
    """Examine results and compare them with the sequences that they should cover, if given."""
    report = Report(f"results folder {root}", ("sequence", "masks", "size", "objects", "recorded"))
    found: dict[str, list[Picture]] = {}
    records = {path.stem: read_record(path) for path in (root / ".manifest").glob("*.json")}
    for folder in tqdm(subfolders(root), unit="sequence", disable=None, leave=False):
        masks = found[folder.name] = read_all(report, _masks(report, folder).values(), look_at_mask)
        note_strays(report, folder, is_mask_file)
        compare_sizes(report, folder.name, [], masks)
        compare_numbers(report, folder.name, masks)
        record = records.get(folder.name)
        recorded = str(record.get("finished") or "unfinished") if record else "-"
        report.rows.append((folder.name, str(len(masks)), sizes_text(masks), objects_text(masks), recorded))
    note_strays(report, root, lambda path: path.is_dir() or path.suffix in {".mp4", ".json", ".csv", ".html"})
    if len({record.get("settings_hash") for name, record in records.items() if record and (root / name).is_dir()}) > 1:
        report.problems.append("the sequences were made with different settings; run the method again over all of them")
    unfinished = [path.name.rpartition(".")[0] for path in (root / ".partial").glob("*")]
    if unfinished:
        report.notes.append(f"being written, or begun by a run that was stopped: {listed(sorted(unfinished))}")
    if sequences is None:
        report.notes.append("add --root to compare it with a data set: missing frames, sizes, ids")
    else:
        _compare_with(report, root, found, sequences)
    return report


def _masks(report: Report, folder: Path) -> dict[str, Path]:
    masks: dict[str, Path] = {}
    report.attempt(lambda: masks.update(mask_files(folder)))
    return masks


def _compare_with(
    report: Report,
    root: Path,
    found: dict[str, list[Picture]],
    sequences: Sequence[vos_shared.datasets.VideoSequence],
) -> None:
    for sequence in sequences:
        names, masks = list(sequence.frame_names), found.pop(sequence.name, [])
        there = _masks(report, root / sequence.name)
        if lacking := [name for name in names if name not in there]:
            report.problems.append(
                f"{sequence.name} lacks {len(lacking)} of {len(names)} masks: {ranges(lacking, names)}"
            )
        if surplus := sorted(set(there) - set(names)):
            report.problems.append(f"{sequence.name}: masks for no frame of the data set: {listed(surplus)}")
        wrong = [mask.name for mask in masks if mask.size != sequence.video.size]
        if wrong:
            odd = ranges(wrong, [mask.name for mask in masks])
            report.problems.append(f"{sequence.name}: not {describe_size(sequence.video.size)} like the frames: {odd}")
        report.attempt(partial(_note_strange_ids, report, sequence, masks))
    if found:
        report.notes.append(f"not in the data set's list: {listed(sorted(found))}")


def _note_strange_ids(report: Report, sequence: vos_shared.datasets.VideoSequence, masks: Sequence[Picture]) -> None:
    report.notes.extend(sequence.compare_objects())
    strange = sorted({k for mask in masks for k in mask.ids}.difference(sequence.object_ids()))
    if strange:
        report.notes.append(f"{sequence.name}: ids that the data set does not have: {strange}")
