"""The command line of the benchmarks; no test checks a measured figure."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench import cell, table

TOOLS = Path(__file__).resolve().parent.parent / "tools"


def test_every_benchmark_is_offered() -> None:
    shown = subprocess.run([sys.executable, TOOLS / "bench.py", "--help"], capture_output=True, text=True, check=True)
    for benchmark in (TOOLS / "benchmarks").glob("[!_]*.py"):
        assert benchmark.stem.replace("_", "-") in shown.stdout


def test_table_columns_line_up() -> None:
    lines = table([{"what": "plain", "ms": 1234.5}, {"what": "ours", "ms": 3.14159, "ratio": 393}]).splitlines()
    assert lines == [
        "what      ms  ratio",
        "plain  1,234      -",
        "ours    3.14    393",
    ]


def test_numbers_keep_three_digits() -> None:
    assert [cell(value) for value in (0.012345, 12.345, 12345.6, 12345, None, "x")] == [
        "0.0123",
        "12.3",
        "12,346",
        "12,345",
        "-",
        "x",
    ]
