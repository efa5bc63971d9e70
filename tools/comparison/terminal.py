"""Tables as text."""

from __future__ import annotations

from collections.abc import Sequence

from comparison.tables import Cell, Line, Table


def table_text(table: Table) -> str:
    """A table in columns that line up, for the terminal; lines without a result are left out."""
    header = ["", *(column.heading for column in table.columns)]
    body = [[_name(line), *map(_cell_text, line.cells)] for line in table.lines if line.cells]
    widths = [max(map(len, column)) for column in zip(header, *body, strict=True)]
    return "\n".join([table.title, _line(header, widths), *(_line(row, widths) for row in body)])


def _name(line: Line) -> str:
    return f"{line.label} ({line.remark})" if line.remark else line.label


def _cell_text(cell: Cell) -> str:
    if cell.interval is None:
        return cell.text
    low, high = cell.interval
    return f"{cell.text} [{low:.2f}, {high:.2f}]"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    name, *rest = cells
    columns = [f"{text:>{width}}" for text, width in zip(rest, widths[1:], strict=True)]
    return "  ".join(["", f"{name:<{widths[0]}}", *columns]).rstrip()
