"""metrics.json and metrics.csv."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from comparison.records import Measure, Protocol, Row
from comparison.tables import SCORE_COLUMNS

CSV_HEADER = (
    "method",
    "given",
    "protocol",
    "sequence",
    "item",
    *SCORE_COLUMNS,
    "J&F-Low",
    "J&F-High",
    "ms_per_frame",
    "peak_memory_bytes",
    "parameters",
    "weights",
    "trained",
    "failure",
)
OVERALL = "all"


def metrics_csv(rows: Iterable[Row], protocols: Sequence[Protocol]) -> str:
    """One line for each row and protocol, and below it one for each object or sequence; empty where not known."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_HEADER, restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        about = _about(row)
        writer.writerows({**about, **score} for score in _score_lines(row, protocols))
    return text.getvalue()


def _about(row: Row) -> dict[str, Any]:
    return {
        "method": row.label,
        "given": row.given.value,
        "ms_per_frame": row.ms_per_frame,
        "peak_memory_bytes": row.peak_memory_bytes,
        "parameters": row.model.parameters if row.model else None,
        "weights": row.model.weights if row.model else None,
        "trained": row.model.trained if row.model else None,
        "failure": row.failure,
    }


def _score_lines(row: Row, protocols: Sequence[Protocol]) -> Iterable[dict[str, Any]]:
    if not row.scored:
        yield {}
    for protocol in protocols:
        if scored := row.scored.get(protocol.name):
            yield {"protocol": protocol.name, "item": OVERALL, **_values(scored.overall)}
            for item, measure in scored.items.items():
                sequence = scored.sequence_of[item]
                yield {"protocol": protocol.name, "sequence": sequence, "item": item, **_values(measure)}


def _values(measure: Measure) -> dict[str, float]:
    low, high = measure.intervals.get("J&F-Mean", (math.nan, math.nan))
    values = {**measure.values, "J&F-Low": low, "J&F-High": high}
    return {name: value for name, value in values.items() if not math.isnan(value)}


def metrics_json(rows: Iterable[Row], title: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """Everything that was measured, for programs; values that are not defined are null."""
    return {"input": title, "environment": dict(environment), "rows": [_row_json(row) for row in rows]}


def _row_json(row: Row) -> dict[str, Any]:
    return {
        **_about(row),
        "title": row.title,
        "paper": row.paper,
        "masks": str(row.masks),
        "runs": {
            name: {"frames": run.frames, "seconds": run.seconds, "peak_memory_bytes": run.peak_memory_bytes}
            for name, run in row.runs.items()
        },
        "scores": {
            name: {
                "summary": _numbers(scored.overall.values),
                "intervals": dict(scored.overall.intervals),
                "items": {item: _numbers(measure.values) for item, measure in scored.items.items()},
                "region_over_time": {
                    sequence: [[frame, _number(score)] for frame, score in values]
                    for sequence, values in scored.region_over_time.items()
                },
            }
            for name, scored in row.scored.items()
        },
    }


def _numbers(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: _number(value) for name, value in values.items()}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
