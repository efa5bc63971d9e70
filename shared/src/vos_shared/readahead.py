"""Producing items on a thread, ahead of the consumer."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def read_ahead(items: Generator[T, None, None], depth: int = 4) -> Iterator[T]:
    """Run a generator on a thread, at most `depth` items ahead of the consumer.

    An exception of the generator is raised here. A consumer that stops early (`break`, an exception, dropping the
    iterator) ends the thread and closes the generator.
    """
    end = object()
    executor = ThreadPoolExecutor(1, thread_name_prefix="vos-read-ahead")
    try:
        waiting = deque(executor.submit(next, items, end) for _ in range(depth))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(executor.submit(next, items, end))
            yield item  # type: ignore[misc]  # It is not the end.
    finally:
        executor.shutdown(cancel_futures=True)
        items.close()
