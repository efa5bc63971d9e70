"""Opening files that users name; only regular files, since reading a pipe or a device might never end."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO, Literal


def open_file(path: str | Path, mode: Literal["rb", "ab"] = "rb") -> BinaryIO:
    """Open a regular file, or a link to one, for reading or appending bytes.

    Raises:
        OSError: the file cannot be opened, or is a pipe, a device or a socket.
    """
    return open(path, mode, opener=_open_regular)


def read_bytes(path: str | Path) -> bytes:
    """The content of a regular file.

    Raises:
        OSError: as `open_file`.
    """
    with open_file(path) as file:
        return file.read()


def read_text(path: str | Path) -> str:
    """The text of a regular file, UTF-8 with or without a byte-order mark; lines divided as they are stored.

    Raises:
        OSError: as `open_file`.
        UnicodeDecodeError: it is not UTF-8.
    """
    return read_bytes(path).decode("utf-8-sig")


def read_json(path: str | Path) -> Any:
    """The value in a JSON file; text as in `read_text`.

    Raises:
        OSError: as `open_file`.
        ValueError: it is not JSON, not UTF-8, or nested too deeply.
    """
    try:
        return json.loads(read_text(path))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _open_regular(path: str, flags: int) -> int:
    # Without O_NONBLOCK, opening a pipe waits for a writer; regular files are not affected.
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o666)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):  # `open` refuses folders.
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "it is a pipe, a device or a socket; give a regular file", path)
