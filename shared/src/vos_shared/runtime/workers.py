"""Threads that each work on pieces of an array."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self, TypeVar

import torch

Piece = TypeVar("Piece")
Result = TypeVar("Result")


class Workers:
    """As many threads as torch uses, each working on a piece of its own; on a GPU, pieces run one after another.

    Torch's own threads divide every operation and then wait for one another, hundreds of times per frame. Here one
    thread runs all operations of a piece, which is faster for small operations. Results do not depend on the number of
    threads.
    """

    def __init__(self, device: torch.device) -> None:
        threads = torch.get_num_threads() if device.type == "cpu" else 1
        self._ahead = 2 * threads
        self._executor = _serial_threads(threads) if threads > 1 else None

    def map(self, function: Callable[[Piece], Result], pieces: Iterable[Piece]) -> Iterator[Result]:
        """Yield the results in the order of the pieces; only a few are computed ahead of the consumer."""
        if self._executor is None:
            yield from map(function, pieces)
            return
        waiting: deque[Future[Result]] = deque()
        for piece in pieces:
            waiting.append(self._executor.submit(function, piece))
            if len(waiting) > self._ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def run(self, function: Callable[[Piece], object], pieces: Iterable[Piece]) -> None:
        """Call the function on every piece."""
        for _ in self.map(function, pieces):
            pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)


def _serial_threads(count: int) -> ThreadPoolExecutor:
    """An executor in whose threads torch uses a single thread; other threads keep torch's setting."""
    executor = ThreadPoolExecutor(count, thread_name_prefix="vos-worker")
    everyone = threading.Barrier(count + 1)

    def start() -> None:
        torch.get_num_threads()  # The first call in a thread sets the process-wide number, so it must not come later.
        torch.set_num_threads(1)
        everyone.wait()

    for _ in range(count):
        executor.submit(start)
    everyone.wait()
    torch.set_num_threads(count)  # `set_num_threads` sets the number of its thread and of those that start later.
    return executor
