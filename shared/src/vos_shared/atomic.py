"""Files that appear whole or not at all."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; it takes the place of `path` on success and is removed otherwise.

    A killed process leaves at most a hidden file that ends in ``.partial``.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    # Made here, and not by `tempfile`, so that the file gets the permissions which the user's umask grants.
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file as UTF-8; folders that lack are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, indented, keys in the order given; folders that lack are made.

    Raises:
        ValueError: a number that JSON does not have (NaN, infinity).

    """
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
