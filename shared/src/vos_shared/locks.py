"""Locks between processes and machines that share a folder; without effect on file systems without locks."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

_NO_LOCKS: Final = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}
"""Errors of file systems without locks."""


@contextmanager
def locked(path: Path, *, seconds: float) -> Iterator[bool | None]:
    """Hold a lock while the block runs.

    Args:
        path: path of the lock file; its folder must exist. The file is not removed.
        seconds: longest time to wait for the lock.

    Yields:
        True if the lock is held, False if another process holds it, None on a file system without locks.
    """
    lock = FileLock(path)
    held: bool | None = True
    try:
        lock.acquire(timeout=seconds)
    except Timeout:
        held = False
    except NotImplementedError:  # How filelock before version 4 reports ENOSYS.
        held = None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        held = None
    try:
        yield held
    finally:
        lock.release()
