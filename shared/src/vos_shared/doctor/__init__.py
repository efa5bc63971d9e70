"""The content of data sets and results folders, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import vos_shared.datasets
from vos_shared.doctor.data_sets import examine_dataset, examine_davis, examine_youtube_objects, examine_youtube_vos
from vos_shared.doctor.report import Report, entries
from vos_shared.doctor.results import examine_results
from vos_shared.errors import UserError
from vos_shared.folders import is_mask_file, subfolders
from vos_shared.tables import listed

__all__ = ["Report", "examine", "examine_dataset"]


def examine(folder: Path, sequences: Sequence[vos_shared.datasets.VideoSequence] | None = None) -> Report:
    """Read all files of a folder and report problems.

    Args:
        folder: a data set (DAVIS or one of the same layout, YouTube-VOS or one of its splits, YouTube-Objects), or
            results ``<sequence>/<frame>.png``.
        sequences: the sequences that results should cover; None checks results without comparison.

    Raises:
        UserError: no such folder, or its layout is unknown.
    """
    if not folder.is_dir():
        raise UserError(f"no such folder: {folder}")
    if splits := [path for path in (folder, *entries(folder)) if (path / "meta.json").is_file()]:
        return examine_youtube_vos(folder, splits)
    if (folder / "JPEGImages").is_dir():
        return examine_davis(folder)
    if (folder / "Images").is_dir() and (folder / "Labels").is_dir():
        return examine_youtube_objects(folder)
    if any(map(is_mask_file, (path for inner in subfolders(folder) for path in inner.iterdir()))):
        return examine_results(folder, sequences)
    parts = [path.name for path in subfolders(folder) if (path / "JPEGImages").is_dir()]
    raise UserError(
        f"{folder} is neither a DAVIS folder (it has no JPEGImages) nor results (it has no <sequence>/<frame>.png), "
        "nor YouTube-VOS (no <split>/meta.json) or YouTube-Objects (no Images and Labels)"
        + (f"; give one of its folders {listed(parts)}" if parts else "")
    )
