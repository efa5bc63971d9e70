"""Escaping of text from files and file names for terminals."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, Final

_UP: Final = "\x1b[A"
"""The only control sequence of tqdm, written on its own: cursor up, to the upper of two bars."""


def escaped(text: str) -> str:
    r"""Escape characters that are not printable, such as those that begin control sequences, as ``\x1b``."""
    return "".join(c if c.isprintable() else _as_digits(c) for c in text)


@contextmanager
def commands_escaped() -> Iterator[None]:
    """Escape control characters in all that the block prints, so that no name can control the terminal."""
    output, errors = (stream and _Escaping(stream) for stream in (sys.stdout, sys.stderr))  # They may be None.
    with redirect_stdout(output), redirect_stderr(errors):
        yield


class _Escaping:
    """A text stream that escapes control characters (except tabs and line ends) and marks of text direction."""

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
