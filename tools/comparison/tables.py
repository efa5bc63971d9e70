"""The tables of a comparison as plain values, for the terminal and the report."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from comparison.records import Given, Interval, Protocol, Row

MIB = 2**20


@dataclass(frozen=True)
class Column:
    """One column: heading, explanation, and which value is best."""

    heading: str
    meaning: str
    best: str | None = None
    """``max``, ``min``, ``zero`` (the value nearest to 0), or None where no value is better."""


@dataclass(frozen=True)
class Cell:
    """One value: as text, and as a number to sort by (None sorts last)."""

    text: str
    value: float | str | None = None
    interval: Interval | None = None
    is_best: bool = False


@dataclass(frozen=True)
class Line:
    """One row of a table; `failure` replaces the cells of a method without a result."""

    label: str
    cells: tuple[Cell, ...] = ()
    failure: str | None = None
    remark: str = ""


@dataclass(frozen=True)
class Table:
    """A titled table."""

    key: str
    title: str
    explanation: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]


SCORE_COLUMNS = {
    "J&F-Mean": Column("J&F", "mean of J and F; below it the 95 % bootstrap interval over sequences", "max"),
    "J-Mean": Column("J", "region similarity: intersection over union of the masks", "max"),
    "J-Recall": Column("J recall", "share of frames with J above 0.5", "max"),
    "J-Decay": Column(
        "J decay", "J in the first quarter of the frames less J in the last; nearest to 0 is best", "zero"
    ),
    "F-Mean": Column("F", "contour accuracy: F-measure of the boundaries", "max"),
    "F-Recall": Column("F recall", "share of frames with F above 0.5", "max"),
    "F-Decay": Column(
        "F decay", "F in the first quarter of the frames less F in the last; nearest to 0 is best", "zero"
    ),
}
SPEED = Column("ms/frame", "milliseconds a frame inside the method; reading frames and writing masks left out", "min")

PROMPT = Column("prompt", "masks of the objects that the method gets")


def score_table(rows: Iterable[Row], protocol: Protocol) -> Table:
    """J and F of every row that the protocol can score, best J&F first."""
    judged = [row for row in rows if row.given in protocol.takes]
    columns = (*SCORE_COLUMNS.values(), SPEED, PROMPT)
    lines = [_score_line(row, protocol) for row in judged]
    lines.sort(key=lambda line: _sort_key(line.cells[0].value if line.cells else None))
    return _finish(protocol.name, protocol.title, protocol.explanation, columns, lines)


def _score_line(row: Row, protocol: Protocol) -> Line:
    scored = row.scored.get(protocol.name)
    if scored is None or row.failure is not None:
        return Line(row.label, failure=row.failure or "not scored", remark=remark(row))
    measure = scored.overall
    cells = [score_cell(measure.values.get(name), measure.intervals.get(name)) for name in SCORE_COLUMNS]
    return Line(row.label, (*cells, _ms_cell(row), _told_cell(row)), remark=remark(row))


def speed_table(rows: Iterable[Row]) -> Table:
    """Time, memory, size and origin of the weights of every row that ran here, fastest first."""
    columns = (
        SPEED,
        Column("frames/s", "frames per second, the inverse of ms/frame", "max"),
        Column("peak MiB", "peak memory in MiB: of the whole process on a CPU, of the device's tensors on CUDA", "min"),
        Column("parameters", "number of learned values of the networks", "min"),
        PROMPT,
        Column("weights", "where the weights come from"),
    )
    lines = [_speed_line(row) for row in rows if row.given is not Given.UNKNOWN]
    lines.sort(key=lambda line: -_sort_key(line.cells[0].value) if line.cells else math.inf)
    explanation = (
        "Time inside the method, preparation included, divided by all frames of the finished sequences;"
        " reading frames and writing masks are left out."
    )
    return _finish("speed", "Time, memory, size", explanation, columns, lines)


def _speed_line(row: Row) -> Line:
    if row.failure is not None:
        return Line(row.label, failure=row.failure, remark=remark(row))
    ms, memory, model = row.ms_per_frame, row.peak_memory_bytes, row.model
    return Line(
        row.label,
        (
            _ms_cell(row),
            _number_cell(1000 / ms if ms else None, ".1f"),
            _number_cell(memory / MIB if memory else None, ".0f"),
            Cell(count_text(model.parameters), model.parameters) if model else Cell("–"),
            _told_cell(row),
            Cell(model.weights, model.weights) if model else Cell("–"),
        ),
        remark=remark(row),
    )


def item_table(rows: Sequence[Row], protocol: Protocol) -> Table:
    """J&F of every object or sequence (line) by row (column)."""
    judged = [row for row in rows if protocol.name in row.scored]
    names = dict.fromkeys(name for row in judged for name in row.scored[protocol.name].items)
    columns = tuple(Column(row.label, f"J&F of {row.label}", "max") for row in judged)
    lines = [Line(name, tuple(_item_cell(row, protocol, name) for row in judged)) for name in names]
    return Table(f"items-{protocol.name}", protocol.title, protocol.explanation, columns, tuple(lines))


def _item_cell(row: Row, protocol: Protocol, name: str) -> Cell:
    measure = row.scored[protocol.name].items.get(name)
    return score_cell(measure.values.get("J&F-Mean") if measure else None)


def remark(row: Row) -> str:
    """The note that follows the name of a row in every table."""
    if row.model is not None and not row.model.trained and row.model.parameters:
        return "untrained weights"
    return "masks computed elsewhere" if row.given is Given.UNKNOWN else ""


def score_cell(value: float | None, interval: Interval | None = None) -> Cell:
    """A score in 0..1 with three digits."""
    return replace(_number_cell(value, ".3f"), interval=interval)


def count_text(count: int) -> str:
    """A number of parameters in millions: 11.2 M."""
    for factor, unit in ((10**9, " G"), (10**6, " M"), (10**3, " k")):
        if count >= factor:
            return f"{count / factor:.1f}{unit}"
    return str(count)


def _number_cell(value: float | None, form: str) -> Cell:
    if value is None or math.isnan(value):
        return Cell("–")
    return Cell(format(value, form).replace("-", "−"), value)


def _ms_cell(row: Row) -> Cell:
    ms = row.ms_per_frame
    return _number_cell(ms, ".2f" if ms is not None and ms < 10 else ".1f")


def _told_cell(row: Row) -> Cell:
    return Cell("–") if row.given is Given.UNKNOWN else Cell(row.given.value, row.given.value)


def _sort_key(value: float | str | None) -> float:
    return -value if isinstance(value, int | float) else math.inf


def _finish(key: str, title: str, explanation: str, columns: Sequence[Column], lines: Sequence[Line]) -> Table:
    """Mark the best cell of each column that has a best value, if there are several lines."""
    complete = [line for line in lines if line.cells]
    if len(complete) < 2:
        return Table(key, title, explanation, tuple(columns), tuple(lines))
    best = [_best_text(column, [line.cells[i] for line in complete]) for i, column in enumerate(columns)]
    marked = [
        replace(
            line,
            cells=tuple(
                replace(cell, is_best=cell.text == text) if text else cell
                for cell, text in zip(line.cells, best, strict=False)
            ),
        )
        for line in lines
    ]
    return Table(key, title, explanation, tuple(columns), tuple(marked))


def _best_text(column: Column, cells: Sequence[Cell]) -> str | None:
    numbers = [(cell.value, cell.text) for cell in cells if isinstance(cell.value, int | float)]
    if column.best is None or len({text for _, text in numbers}) < 2:
        return None
    if column.best == "zero":
        return min(numbers, key=lambda number: abs(number[0]))[1]
    return (max if column.best == "max" else min)(numbers)[1]
