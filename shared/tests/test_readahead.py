"""Reading ahead: bounded, in order, and ended with the consumer."""

from __future__ import annotations

import time
from collections.abc import Generator

import pytest

from vos_shared.errors import BadVideo
from vos_shared.readahead import read_ahead

pytestmark = pytest.mark.usefixtures("no_thread_is_left")


def test_stopping_early_ends_the_thread_and_closes_the_source() -> None:
    closed: list[bool] = []

    def endless() -> Generator[int, None, None]:
        try:
            yield from iter(int, 1)
        finally:
            closed.append(True)

    for _ in read_ahead(endless()):
        break
    assert closed == [True]


def test_reader_stays_a_bounded_number_of_frames_ahead() -> None:
    produced: list[int] = []

    def count() -> Generator[int, None, None]:
        for number in range(1000):
            produced.append(number)
            yield number

    ahead = read_ahead(count(), depth=3)
    assert next(ahead) == 0
    deadline = time.monotonic() + 5
    while len(produced) < 5 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert len(produced) <= 5  # One delivered, three on the queue, one in the producer's hand.
    del ahead


def test_failure_reaches_the_consumer_after_the_good_items() -> None:
    def failing() -> Generator[int, None, None]:
        yield from (1, 2)
        raise BadVideo("frame 2 is broken")

    received: list[int] = []

    def consume() -> None:
        for item in read_ahead(failing()):
            received.append(item)

    with pytest.raises(BadVideo, match="frame 2 is broken"):
        consume()
    assert received == [1, 2]
