"""The report: one HTML file that needs no other file."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from comparison.records import FOREGROUND, Given, Protocol, Row
from comparison.report.pictures import MOST_SEQUENCES, Pictures
from comparison.tables import item_table, remark, score_table, speed_table
from vos_shared.atomic import write_text
from vos_shared.errors import MissingExtra

try:  # Checked at import: when the report is written, all methods have run already.
    import jinja2
except ImportError as error:
    raise MissingExtra("the report needs Jinja2: pip install 'vos-shared[report]'") from error

HERE = Path(__file__).parent
SCRIPTS = ("sorting.js", "charts.js", "pixels.js", "viewer.js", "main.js")
COLOURS = 8
SCORE_NOTES = (
    "J is intersection over union; F compares boundaries within 0.8 % of the image diagonal. Recall counts frames"
    " above 0.5; decay is the first quarter's mean less the last quarter's.",
    "Intervals: 95 % percentile bootstrap, sequences drawn with replacement, each with all its objects. One sequence"
    " alone gives none.",
)
SPEED_NOTES = (
    "Milliseconds a frame: time inside the method, preparation included, device synchronised. Decoding frames and"
    " writing masks are not included; they run on other threads.",
    "Methods ran one after another, each in a separate process.",
    "Peak memory: of the whole process, Python and libraries included, on a CPU; of tensors on a CUDA device.",
)


@dataclass(frozen=True)
class Contents:
    """The content of the report.

    Attributes:
        title: of the input.
        rows: all rows, including failed ones.
        protocols: how they were scored.
        pictures: for the viewer.
        environment: versions, machine and command line by name.
        csv: the metrics as CSV, for the download link.
        sequences: number of sequences; there may be pictures of fewer.
        unscored: why there are no scores; empty if there are.
    """

    title: str
    rows: Sequence[Row]
    protocols: Sequence[Protocol]
    pictures: Sequence[Pictures]
    environment: Mapping[str, str]
    csv: str
    sequences: int
    unscored: str


def write_report(path: Path, contents: Contents) -> None:
    """Write the report atomically."""
    write_text(path, render_report(contents))


def render_report(contents: Contents) -> str:
    """The report as HTML; names from files and packages are escaped everywhere."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, undefined=jinja2.StrictUndefined
    )
    rows, protocols = contents.rows, contents.protocols
    finished = [row for row in rows if row.failure is None]
    colours = {row.label: i % COLOURS for i, row in enumerate(rows)}
    return environment.get_template("template.html").render(
        title=contents.title,
        lead=_lead(contents),
        score_tables=[score_table(rows, protocol) for protocol in protocols],
        speed_table=speed_table(rows),
        item_tables=[table for table in (item_table(finished, protocol) for protocol in protocols) if table.lines],
        item_links=_item_links(finished, protocols, contents.pictures),
        colours=colours,
        failures=[row for row in rows if row.failure is not None],
        row_count=len(rows),
        untrained=[row.label for row in finished if remark(row) == "untrained weights"],
        has_scores=any(FOREGROUND.name in row.scored for row in finished),
        chart_legend={row.label: colours[row.label] for row in finished if FOREGROUND.name in row.scored},
        has_scatter=any(FOREGROUND.name in row.scored and row.ms_per_frame for row in finished),
        has_pictures=bool(contents.pictures),
        picture_note=_picture_note(contents),
        papers=[row for row in rows if row.given is not Given.UNKNOWN],
        notes=_notes(contents),
        environment=contents.environment,
        csv=base64.b64encode(contents.csv.encode()).decode("ascii"),
        data=_data(contents, colours),
        style=_source("style.css"),
        scripts=[_source(script) for script in SCRIPTS],
    )


def _source(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _lead(contents: Contents) -> str:
    lines = score_table(contents.rows, contents.protocols[0]).lines if contents.protocols else ()
    what = f"{_count(len(contents.rows), 'row')} on {_count(contents.sequences, 'sequence')}."
    if contents.unscored:
        return f"{what} No scores: {contents.unscored}."
    if not lines or not lines[0].cells:
        return what
    best = lines[0].cells[0]
    between = f" (95 % interval {best.interval[0]:.2f}–{best.interval[1]:.2f})" if best.interval else ""
    return f"{what} Best J&F by “{contents.protocols[0].title}”: {lines[0].label} with {best.text}{between}."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _item_links(rows: Iterable[Row], protocols: Iterable[Protocol], pictures: Iterable[Pictures]) -> dict[str, str]:
    """Sequence to open in the viewer, by item."""
    shown = {taken.name for taken in pictures}
    scored = [row.scored[protocol.name] for row in rows for protocol in protocols if protocol.name in row.scored]
    pairs = {item: sequence for score in scored for item, sequence in score.sequence_of.items()}
    return {item: sequence for item, sequence in pairs.items() if sequence in shown}


def _picture_note(contents: Contents) -> str:
    notes = []
    if any(len(taken.shown) < taken.length for taken in contents.pictures):
        notes.append(
            "Long sequences are shown with frames left out, and pictures are reduced, to keep this file small;"
        )
        notes.append("scores are of all frames at full size.")
    if contents.sequences > len(contents.pictures):
        notes.append(f"Only the first {MOST_SEQUENCES} sequences have pictures.")
    return " ".join(notes)


def _notes(contents: Contents) -> list[str]:
    notes = [f"{protocol.title}. {protocol.explanation}" for protocol in contents.protocols]
    return [*notes, *(SCORE_NOTES if contents.protocols else ()), *SPEED_NOTES]


def _data(contents: Contents, colours: Mapping[str, int]) -> dict[str, Any]:
    return {
        "rows": [
            _row_data(row, colours[row.label], i // COLOURS)
            for i, row in enumerate(contents.rows)
            if row.failure is None
        ],
        "sequences": [asdict(taken) for taken in contents.pictures],
    }


def _row_data(row: Row, colour: int, turn: int) -> dict[str, Any]:
    scored = row.scored.get(FOREGROUND.name)
    items = scored.items.items() if scored else ()
    accuracy = scored.overall.values["J&F-Mean"] if scored else math.nan
    return {
        "label": row.label,
        "colour": colour,
        "round": turn,
        "accuracy": None if math.isnan(accuracy) else accuracy,
        "interval": scored.overall.intervals.get("J&F-Mean") if scored else None,
        "ms": row.ms_per_frame,
        "foreground": row.given is Given.NOTHING,
        "items": {name: round(measure.values["J&F-Mean"], 4) for name, measure in items},
        "region": {
            sequence: [[i, round(score, 4)] for i, score in values if not math.isnan(score)]
            for sequence, values in (scored.region_over_time.items() if scored else ())
        },
    }
