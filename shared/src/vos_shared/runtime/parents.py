"""Worker processes that do not outlive the process that started them; does not import torch."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process

from tqdm import TMonitor

from vos_shared.errors import UserError


@contextmanager
def process_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of worker processes; after an error in the block, waiting calls are dropped.

    Raises:
        UserError: a worker was killed.
    """
    with ProcessPoolExecutor(workers, get_context(start_method()), follow_parent) as pool:
        try:
            yield pool
        except BrokenProcessPool:
            raise UserError(f"one of {workers} workers died, perhaps because memory ran out; use fewer") from None
        finally:
            pool.shutdown(cancel_futures=True)


def start_method() -> str:
    """Fork, which costs nothing, if no other thread (such as torch's) could hold a lock; else spawn."""
    threads = [t for t in threading.enumerate() if t is not threading.main_thread() and not isinstance(t, TMonitor)]
    return "fork" if sys.platform == "linux" and not threads and "torch" not in sys.modules else "spawn"


def follow_parent() -> None:
    """In a worker: leave Ctrl-C to the parent process, and end when the parent has ended for any reason."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


def end_with_parent(*, group: bool = False) -> None:
    """In a worker: end as soon as the parent process has ended for any reason.

    Args:
        group: end the whole process group of the worker, including its children; it must lead its own group.
    """
    threading.Thread(target=_wait_for_parent, args=(group,), daemon=True).start()


def _wait_for_parent(group: bool) -> None:
    parent = parent_process()
    if parent is None:
        return
    parent.join()
    if group and hasattr(os, "killpg"):
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
