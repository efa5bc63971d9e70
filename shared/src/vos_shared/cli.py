"""The ``vos`` command, and what all command lines share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from vos_shared.errors import UserError


def run_cli(command: Callable[[], object], *, prog: str | None = None) -> int:
    """Run a command line; what the user can mend becomes one line instead of a traceback.

    Args:
        command: parses ``sys.argv`` and does the work.
        prog: name of the program; by default that of the script.

    Returns:
        The exit code: 0, 2 after a `UserError`, 130 after Ctrl-C, or what the command returns if that is an int.

    """
    prog = prog or Path(sys.argv[0]).name
    try:
        result = command()
    except UserError as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{prog}: stopped; what is finished stays", file=sys.stderr)
        return 130
    return result if isinstance(result, int) else 0
