"""Wall-clock time of work on any device."""

from __future__ import annotations

import time
from typing import Self

import torch


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
        self._device = torch.device(device)
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


def synchronise(device: torch.device) -> None:
    """Wait until the device has finished all queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
