"""The cores of a CPU, each with work of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_on_threads(function: Callable[[Item], Result], items: Sequence[Item], device: torch.device) -> list[Result]:
    """``[function(item) for item in items]``; on a CPU, torch's threads take items in turn.

    By itself torch shares each operation among all threads, which does not pay for small ones.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or min(threads, len(items)) < 2:
        return [function(item) for item in items]
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(function, items))
    finally:
        torch.set_num_threads(threads)  # Threads that start later take after the last call.
