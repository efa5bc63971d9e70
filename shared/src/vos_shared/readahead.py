"""Producing items on a thread, ahead of the consumer."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from queue import Empty, Queue
from typing import Generic, TypeVar

T = TypeVar("T")


class _End(Generic[T]):
    """The last item of the queue, with the exception that ended the producer, if any."""

    def __init__(self, failure: BaseException | None = None) -> None:
        self.failure = failure


def read_ahead(items: Generator[T, None, None], depth: int = 4) -> Iterator[T]:
    """Run a generator on a thread, at most `depth` items ahead of the consumer.

    An exception of the generator is raised here. A consumer that stops early (`break`, an exception, dropping the
    iterator) ends the thread and closes the generator.
    """
    queue: Queue[T | _End[T]] = Queue(depth)
    stop = threading.Event()

    def produce() -> None:
        end: _End[T] = _End()
        try:
            for item in items:
                queue.put(item)
                if stop.is_set():
                    break
        except BaseException as failure:
            end = _End(failure)
        finally:
            items.close()
        if not stop.is_set():
            queue.put(end)

    thread = threading.Thread(target=produce, name="vos-read-ahead", daemon=True)
    thread.start()
    try:
        while not isinstance(item := queue.get(), _End):
            yield item
        if item.failure is not None:
            raise item.failure
    finally:
        stop.set()
        _drain(queue)  # Wakes a producer that waits for room; it puts at most one more item before it stops.
        thread.join()


def _drain(queue: Queue[T]) -> None:
    try:
        while True:
            queue.get_nowait()
    except Empty:
        pass
