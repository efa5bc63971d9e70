"""Time spent waiting for input; does not import torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")


class WaitingTime:
    """Adds up the time spent waiting for items.

    Attributes:
        seconds: total so far.
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    def call(self, read: Callable[[], T]) -> T:
        """Call `read` and add its time."""
        started = time.perf_counter()
        try:
            return read()
        finally:
            self.seconds += time.perf_counter() - started

    def each(self, items: Iterator[T]) -> Iterator[T]:
        """Yield the items; the time until each is available counts."""
        end = object()
        while (item := self.call(lambda: next(items, end))) is not end:
            yield item  # type: ignore[misc]  # It is not the end.
