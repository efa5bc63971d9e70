"""Tables as text."""

from __future__ import annotations

from textwrap import indent

from comparison.tables import Cell, Line, Table
from vos_shared.tables import text_table


def table_text(table: Table) -> str:
    """Format a table with aligned columns; lines without a result are left out."""
    header = ["", *(column.heading for column in table.columns)]
    body = [[_name(line), *map(_cell_text, line.cells)] for line in table.lines if line.cells]
    return f"{table.title}\n{indent(text_table(header, body, rule=False), '  ')}"


def _name(line: Line) -> str:
    return f"{line.label} ({line.remark})" if line.remark else line.label


def _cell_text(cell: Cell) -> str:
    if cell.interval is None:
        return cell.text
    low, high = cell.interval
    return f"{cell.text} [{low:.2f}, {high:.2f}]"
