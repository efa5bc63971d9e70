"""Writing files atomically."""

from __future__ import annotations

import csv
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

from vos_shared.errors import UserError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; on success it replaces `path`, after an error it is removed.

    If `path` is a symbolic link, its target is replaced. For a pipe or a device such as /dev/stdout, the content is
    copied to it at the end. A killed process leaves at most a hidden file that ends in ``.partial``.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        with _passed_on_to(path) as temporary:
            yield temporary
        return
    path = path.resolve() if path.is_symlink() else path
    # A short name, since file systems limit the length.
    temporary = path.with_name(f".{secrets.token_hex(8)}.partial")
    # Not made by `tempfile`, so that the permissions follow the user's umask.
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:  # Let the error name the file, not the temporary one.
        if error.errno is not None and error.filename in (None, str(temporary)):
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _passed_on_to(stream: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder, "content")
        temporary.touch()
        yield temporary
        with temporary.open("rb") as content, stream.open("wb") as target:
            shutil.copyfileobj(content, target)


def write_text(path: Path, text: str) -> None:
    """Write a text file as UTF-8; creates missing folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write an indented JSON file; creates missing folders.

    Raises:
        ValueError: a number is NaN or infinite, which JSON does not have.
    """
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(path: Path, rows: Iterable[Iterable[object]]) -> None:
    """Write a CSV file; creates missing folders."""
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(path, text.getvalue())


def require_json(path: Path | None) -> None:
    """Check that `path` does not exist or holds JSON, before any work, so that no other file is overwritten.

    Raises:
        UserError: the file is something else, for example the input.
    """
    if path is None or not path.is_file():
        return
    with path.open("rb") as file:
        start = file.read(1)
    if start not in {b"", b"{", b"["}:
        raise UserError(f"{path} exists and is not a JSON file; choose another name")
