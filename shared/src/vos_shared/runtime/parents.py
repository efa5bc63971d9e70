"""Worker processes that do not outlive the process that started them."""

from __future__ import annotations

import os
import signal
import threading
from multiprocessing import parent_process


def end_with_parent(*, group: bool = False) -> None:
    """In a worker: end as soon as the parent process has ended for any reason.

    Args:
        group: end the whole process group of the worker, its children included; it must lead a group of its own.
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
