"""Wall-clock time of work that may run on a device."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

import torch


class Stopwatch:
    """Adds up the time spent inside its ``with`` blocks, work queued on the device included.

    Example:
        watch = Stopwatch(device)
        for frame in video:
            with watch:
                segmenter.step(frame)
        print(watch.seconds, watch.laps)

    Attributes:
        laps: seconds of each block, in order.

    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._device = torch.device(device)
        self.laps: list[float] = []

    @property
    def seconds(self) -> float:
        """All blocks together."""
        return sum(self.laps)

    def __enter__(self) -> Self:
        synchronise(self._device)
        self._start = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        synchronise(self._device)
        self.laps.append(time.perf_counter() - self._start)


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all that was queued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
