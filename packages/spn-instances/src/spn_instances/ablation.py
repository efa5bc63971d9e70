"""The paper's table of stages: the pipeline on a data set, with one stage less from row to row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from spn_instances.learners import SECONDS
from vos_shared.checkpoints.safetensors_io import read_metadata
from vos_shared.metrics.scores import Scores
from vos_shared.tables import text_table

COLUMNS = {"Global": "J&F-Mean", "J mean": "J-Mean", "J recall": "J-Recall", "F mean": "F-Mean", "F recall": "F-Recall"}
"""The paper's names of the measures."""


def rows(*, online: bool) -> dict[str, dict[str, Any]]:
    """Options of each row, by its name in the paper.

    Args:
        online: with fine-tuned networks, and with rows that leave out fine-tuning. The last row is not in the paper:
            objects have no networks, and share what the fine-tuned foreground net finds around them.
    """
    table: dict[str, dict[str, Any]] = {
        "full": {},
        "without CRAF": {"craf": False},
        "without CRAF, SPN": {"craf": False, "spn": False},
    }
    if online:
        per_object = table["without CRAF, SPN"]
        table["without CRAF, SPN, foreground tuning"] = {**per_object, "tune_foreground": False}
        table["without CRAF, SPN, object tuning"] = {**per_object, "tune_objects": False}
    return table


def ablation(run: Callable[[str, Mapping[str, Any]], Scores], *, online: bool) -> str:
    """Run all rows and make the paper's table of them.

    Args:
        run: takes the name and the options of a row, segments and scores.
        online: see `rows`.

    Returns:
        The table as text.
    """
    found = {name: run(name, options).summary for name, options in rows(online=online).items()}
    cells = [(name, *(f"{summary[measure]:.3f}" for measure in COLUMNS.values())) for name, summary in found.items()]
    return text_table(("", *COLUMNS), cells)


def tuning_time(folder: Path, videos: Iterable[str]) -> str:
    """One line about the time that the fine-tuning of kept networks took.

    Args:
        folder: holds a folder of networks for each video.
        videos: names of the videos that count.
    """
    files = [file for video in videos for file in sorted((folder / video).rglob("*.safetensors"))]
    seconds = [float(read_metadata(file).get(SECONDS, "nan")) for file in files]
    each = sum(seconds) / max(len(seconds), 1)
    return f"fine-tuning: {len(seconds)} networks, {each:.1f} s each, {sum(seconds):.0f} s in all"
