"""Speed and memory of what must be fast, measured beside a plain reference implementation in the same run.

`python tools/bench.py NAME`; every file in `benchmarks/` beside this one is a NAME, its `run` takes the options.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import tyro

from vos_shared.tables import text_table

Row: TypeAlias = Mapping[str, object]

PROGRAM = "bench"


def benchmarks() -> dict[str, Callable[..., list[Row]]]:
    """Find every benchmark: the function `run` of each file in `benchmarks/`, by the file's name with hyphens."""
    names = sorted(path.stem for path in (Path(__file__).parent / "benchmarks").glob("[!_]*.py"))
    return {name.replace("_", "-"): importlib.import_module(f"benchmarks.{name}").run for name in names}


def cell(value: object) -> str:
    """Format one value: numbers with thousands separators and at least three significant digits."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def table(rows: Sequence[Row]) -> str:
    """Format rows as a table under their keys; the first column names what was measured."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    return text_table(keys, [[cell(row.get(key)) for key in keys] for row in rows], rule=False)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark that the command line names and print its table."""
    rows = tyro.extras.subcommand_cli_from_dict(benchmarks(), prog=PROGRAM, args=arguments, description=__doc__)
    print(table(rows))


if __name__ == "__main__":
    main()
