"""Locks between processes, and machines, that share a folder; without effect where files cannot be locked."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

_NO_LOCKS: Final = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}
"""What file systems without locks answer."""


@contextmanager
def locked(path: Path, *, seconds: float) -> Iterator[bool | None]:
    """Hold a lock while the block runs.

    Args:
        path: of the lock file; its folder must exist. The file stays.
        seconds: longest time to wait for others.

    Yields:
        True where the lock is held, False where somebody else holds it, None on a file system without locks.
    """
    lock = FileLock(path)
    held: bool | None = True
    try:
        lock.acquire(timeout=seconds)
    except Timeout:
        held = False
    except NotImplementedError:  # filelock before version 4 says ENOSYS so.
        held = None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        held = None
    try:
        yield held
    finally:
        lock.release()
