"""Work on a background thread, in order, with bounded memory."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, Self

P = ParamSpec("P")


class BackgroundThread:
    """Runs calls one after another on a thread; the ``with`` block ends when all are done.

    An error in a call is raised by the next `submit`, or at the end of the block. If the block itself raises, waiting
    calls are dropped.

    Args:
        depth: largest number of waiting calls.

    Attributes:
        busy_seconds: time that the thread has worked.
    """

    def __init__(self, depth: int = 8) -> None:
        self.busy_seconds = 0.0
        self._depth = depth
        self._waiting: deque[Future[None]] = deque()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="vos-background")

    def submit(self, function: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Queue a call; waits while the queue is full."""
        while self._waiting and (len(self._waiting) >= self._depth or self._waiting[0].done()):
            self._waiting.popleft().result()

        def run() -> None:
            started = time.perf_counter()
            function(*args, **kwargs)
            self.busy_seconds += time.perf_counter() - started

        self._waiting.append(self._executor.submit(run))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        try:
            while raised[0] is None and self._waiting:
                self._waiting.popleft().result()
        finally:
            self._executor.shutdown(cancel_futures=True)
