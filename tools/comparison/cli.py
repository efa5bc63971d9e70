"""The command line of a comparison."""

from __future__ import annotations

from collections.abc import Sequence

import tyro

from comparison.options import Options, check_options
from vos_shared.cli import run_cli
from vos_shared.terminal import commands_escaped


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a comparison; `Options` documents the exit code."""
    options = tyro.cli(Options, prog="compare.py", args=arguments)
    return run_cli(lambda: _compare(options), prog="compare")


def _compare(options: Options) -> int:
    check_options(options)
    from comparison.run import compare  # Here, not above: `--help` must not wait for PyTorch.

    with commands_escaped():
        return compare(options)
