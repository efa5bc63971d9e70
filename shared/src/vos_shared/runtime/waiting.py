"""Time that is spent waiting; without torch, which scoring masks does not load."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")


class WaitingTime:
    """Adds up how long somebody waits for what others make.

    Attributes:
        seconds: so far.
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    def call(self, read: Callable[[], T]) -> T:
        """What `read` returns."""
        started = time.perf_counter()
        try:
            return read()
        finally:
            self.seconds += time.perf_counter() - started

    def each(self, items: Iterator[T]) -> Iterator[T]:
        """The items; only the time until the next one is there counts."""
        end = object()
        while (item := self.call(lambda: next(items, end))) is not end:
            yield item  # type: ignore[misc]  # It is not the end.
