"""Tables and long lists as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from vos_shared.terminal import escaped


def text_table(header: Sequence[str], rows: Iterable[Sequence[str]], *, rule: bool = True) -> str:
    """Align columns, the first to the left, the others to the right; with `rule`, draw a line below the header."""
    lines = [tuple(map(escaped, line)) for line in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    if rule:
        lines.insert(1, tuple("-" * width for width in widths))
    return "\n".join(_line(line, widths) for line in lines)


_MOST: Final = 20
"""Largest number of names in a message."""
_LONGEST: Final = 250
"""Longest name in characters; paths are shorter."""


def listed(names: Iterable[str], separator: str = ", ", most: int = _MOST) -> str:
    """Join names, at most `most` of them: ``a, b, c and 999,997 more``; long names are cut."""
    every = list(names)
    shown = [name if len(name) <= _LONGEST else f"{name[:_LONGEST]}…" for name in every[:most]]
    more = f" and {len(every) - most:,} more" if len(every) > most else ""
    return separator.join(shown) + more


def ranges(names: Sequence[str], order: Sequence[str]) -> str:
    """Names in short, with runs of consecutive names in `order`: ``00003, 00007-00012``; a long list is cut."""
    position = {name: t for t, name in enumerate(order)}
    runs: list[list[str]] = []
    for name in names:
        if runs and position[name] == position[runs[-1][-1]] + 1:
            runs[-1].append(name)
        else:
            runs.append([name])
    return listed(run[0] if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = cells
    numbers = [f"{cell:>{width}}" for cell, width in zip(rest, widths[1:], strict=True)]
    return "  ".join([f"{first:<{widths[0]}}", *numbers]).rstrip()
