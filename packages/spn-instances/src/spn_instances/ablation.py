"""The paper's table of stages: the pipeline on a data set, with one stage less from row to row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from vos_shared.metrics.scores import Scores
from vos_shared.tables import text_table

COLUMNS = {"Global": "J&F-Mean", "J mean": "J-Mean", "J recall": "J-Recall", "F mean": "F-Mean", "F recall": "F-Recall"}
"""The paper's names of the measures."""


def rows(*, online: bool) -> dict[str, dict[str, Any]]:
    """Options of each row, by what the paper calls it.

    Args:
        online: with fine-tuned networks; without them there is no row that leaves out fine-tuning the foreground net.
    """
    table: dict[str, dict[str, Any]] = {
        "full": {},
        "without CRAF": {"craf": False},
        "without CRAF, SPN": {"craf": False, "spn": False},
    }
    if online:
        table["without CRAF, SPN, foreground tuning"] = {"craf": False, "spn": False, "tune_foreground": False}
    return table


def ablation(run: Callable[[str, Mapping[str, Any]], Scores], *, online: bool) -> str:
    """Run all rows and print them as the paper does.

    Args:
        run: segments and scores with these options, under the name of the row.
        online: see `rows`.

    Returns:
        The table.
    """
    found = {name: run(name, options).summary for name, options in rows(online=online).items()}
    cells = [(name, *(f"{summary[measure]:.3f}" for measure in COLUMNS.values())) for name, summary in found.items()]
    return text_table(("", *COLUMNS), cells)
