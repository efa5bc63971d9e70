"""The command line of a comparison, and the order in which things happen."""

from __future__ import annotations

import sys

import tyro

from comparison.options import Options, check_options
from vos_shared.errors import UserError


def main(arguments: list[str] | None = None) -> int:
    """Run a comparison; the exit code is described in `Options`."""
    options = tyro.cli(Options, prog="compare.py", args=arguments)
    try:
        check_options(options)
        from comparison.run import compare  # Here: `--help` must not wait for PyTorch.

        return compare(options)
    except UserError as error:
        print(f"compare: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\ncompare: stopped; what is finished is in {options.output}, the same command goes on", file=sys.stderr)
        return 130
