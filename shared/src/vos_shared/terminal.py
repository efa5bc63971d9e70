"""Text from files and their names on its way to a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, Final

_UP: Final = "\x1b[A"
"""What tqdm writes, and nothing with it, to go back to the upper of two bars."""


def escaped(text: str, *, keep: str = "") -> str:
    r"""Write what is not printable, such as the start of a terminal's commands, as ``\x1b``.

    Args:
        text: any text, also with bytes that Python could not decode.
        keep: characters that stay, such as line ends.
    """
    return "".join(c if c.isprintable() or c in keep else _as_digits(c) for c in text)


@contextmanager
def commands_escaped() -> Iterator[None]:
    """Let nothing that is printed in the block command the terminal, whichever name has got into it."""
    output, errors = (stream and _Escaping(stream) for stream in (sys.stdout, sys.stderr))  # None without a terminal.
    with redirect_stdout(output), redirect_stderr(errors):
        yield


class _Escaping:
    """A text stream that writes control characters out, all but tabs and line ends, and marks of direction."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(text.translate(_COMMANDS) if text.replace(_UP, "").strip("\n") else text)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _as_digits(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


_CODES: Final = (*range(32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_COMMANDS: Final = {code: _as_digits(chr(code)) for code in _CODES if chr(code) not in "\t\n\r"}
