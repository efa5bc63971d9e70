"""Wall-clock and processor time of calls, with the device synchronised."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import torch

from vos_shared.runtime.timing import synchronise

Row = dict[str, object]
"""One line of a benchmark's table, by column."""

R = TypeVar("R")


def measured(work: Callable[[], R], device: torch.device) -> tuple[float, float, R]:
    """Milliseconds of the wall clock and of the processor, and the result."""
    synchronise(device)
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    synchronise(device)
    return 1000 * (time.perf_counter() - wall), 1000 * (time.process_time() - cpu), result


class Clock:
    """Milliseconds of calls.

    Attributes:
        wall: by the wall clock.
        cpu: of all threads of this process.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def time(self, work: Callable[[], R]) -> R:
        """Run a function and record its time."""
        wall, cpu, result = measured(work, self.device)
        self.wall.append(wall)
        self.cpu.append(cpu)
        return result

    def forget(self) -> None:
        """Forget all calls so far, for example after warming up."""
        self.wall.clear()
        self.cpu.clear()

    def row(self, what: str) -> Row:
        """The fastest call, as others may use the machine."""
        return {"what": what, "ms a frame": min(self.wall), "CPU ms": min(self.cpu)}
