"""Tables and long lists as text, for terminals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vos_shared.metrics.scores import Scores


def text_table(header: Sequence[str], rows: Iterable[Sequence[str]], *, rule: bool = True) -> str:
    """Columns that line up; the first to the left, the others to the right; with `rule` a line below the header."""
    lines = [tuple(header), *(tuple(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    if rule:
        lines.insert(1, tuple("-" * width for width in widths))
    return "\n".join(_line(line, widths) for line in lines)


def ranges(names: Sequence[str], order: Sequence[str]) -> str:
    """``00003, 00007-00012``: some of the names in `order`, runs of neighbours in short."""
    position = {name: t for t, name in enumerate(order)}
    runs: list[list[str]] = []
    for name in names:
        if runs and position[name] == position[runs[-1][-1]] + 1:
            runs[-1].append(name)
        else:
            runs.append([name])
    return ", ".join(run[0] if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def score_table(scores: Scores) -> str:
    """All measures of each object (or sequence) and, last, their mean; in percent."""
    measures = tuple(scores.summary)
    rows = [(item.name, *_percent(item.measures, measures)) for item in scores.items.values()]
    mean = ("mean", *_percent(scores.summary, measures))
    return text_table((scores.dataset, *measures), [*rows, mean])


def _percent(values: dict[str, float], measures: Sequence[str]) -> list[str]:
    return [f"{100 * values[measure]:.1f}" for measure in measures]


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = cells
    numbers = [f"{cell:>{width}}" for cell, width in zip(rest, widths[1:], strict=True)]
    return "  ".join([f"{first:<{widths[0]}}", *numbers]).rstrip()
