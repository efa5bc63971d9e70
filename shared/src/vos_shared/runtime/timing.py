"""Wall-clock time of work on any device; imports torch only where a device needs it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Self, TypeVar

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


class Stopwatch:
    """Adds up the time spent in its ``with`` blocks, including the work that they queue on the device.

    Example:
        watch = Stopwatch(device)
        for frame in video:
            with watch:
                segmenter.step(frame)
        print(watch.seconds, watch.laps)

    Attributes:
        laps: time of each block in seconds, in order.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._device = device
        self.laps: list[float] = []

    @property
    def seconds(self) -> float:
        """Time of all blocks in seconds."""
        return sum(self.laps)

    def __enter__(self) -> Self:
        synchronise(self._device)
        self._start = time.perf_counter()
        return self

    def __exit__(self, *raised: object) -> None:
        synchronise(self._device)
        self.laps.append(time.perf_counter() - self._start)


def timed(items: Iterator[T], watch: Stopwatch) -> Iterator[T]:
    """Yield the items; the watch measures the time until each is available."""
    end = object()
    while True:
        with watch:
            item = next(items, end)
        if item is end:
            return
        yield item  # type: ignore[misc]  # It is not the end.


def synchronise(device: torch.device | str) -> None:
    """Wait until the device has finished all queued work."""
    if str(device) == "cpu":
        return
    import torch

    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
