"""Batches that depend on (seed, step, slot) alone: a run can stop and go on anywhere, and be split over processes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from torch.utils.data import DataLoader, Dataset, Sampler

from vos_shared.errors import UserError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

T = TypeVar("T")


class EpochOrder:
    """Which item stands at which place of an epoch; each epoch has an order of its own.

    Args:
        size: number of items.
        seed: of the orders; the epoch is added to it.
    """

    def __init__(self, size: int, *seed: int) -> None:
        self.size = size
        self._seed = seed
        self._epoch = -1

    def __call__(self, epoch: int, place: int) -> int:
        """The item, 0 to size - 1."""
        if epoch != self._epoch:
            order = np.random.default_rng([*self._seed, epoch]).permutation(self.size)
            self._order, self._epoch = order.astype(np.uint32), epoch  # [size]; sets of data have millions.
        return int(self._order[place])


class StepSlots(Sampler[list[tuple[int, int]]]):
    """Keys (step, slot) of the batches of one process, from a step on.

    Args:
        first: the first step.
        steps: the number of steps of the whole run.
        batch: samples a step and process.
        rank: of the process; it takes the slots from rank * batch on.
    """

    def __init__(self, first: int, steps: int, batch: int, rank: int) -> None:
        self._first, self._steps, self._slots = first, steps, range(rank * batch, (rank + 1) * batch)

    def __len__(self) -> int:
        return max(self._steps - self._first, 0)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in range(self._first, self._steps):
            yield [(step, slot) for slot in self._slots]


def read_batches(
    samples: Dataset[T], fabric: Fabric, *, first: int, steps: int, batch: int, workers: int
) -> Iterator[Any]:
    """Batches on the device of this process, read ahead by other processes.

    Args:
        samples: items by (step, slot); slots of all processes together count from 0 to batch * world size - 1.
        fabric: launched.
        first: the first step.
        steps: the number of steps of the whole run.
        batch: samples a step and process.
        workers: processes that read; 0 reads in this one.

    Raises:
        UserError: as `samples` raised it, or a reading process was killed.
    """
    keys = StepSlots(first, steps, batch, fabric.global_rank)
    for item in load(samples, keys, workers=workers, pin_memory=fabric.device.type == "cuda"):
        yield fabric.to_device(item)


def load(
    samples: Dataset[T], keys: Iterable[Sequence[Any]], *, workers: int, pin_memory: bool = False
) -> Iterator[Any]:
    """Batches of samples, one for each list of keys.

    Raises:
        UserError: as `samples` raised it; a file cannot be read; a reading process was killed.
    """
    loader: DataLoader[T] = DataLoader(
        samples,
        batch_sampler=keys,  # type: ignore[arg-type]  # Keys need not be ints.
        num_workers=workers,
        pin_memory=pin_memory,
        worker_init_fn=_leave_process_group,
    )
    return worker_items(loader)


def worker_items(loader: Iterable[T]) -> Iterator[T]:
    """The items of a data loader; errors of the user that its processes meet stay one line.

    Raises:
        UserError: as the data set raised it; a file cannot be read; a reading process was killed while waited for.
    """
    try:
        with lost_workers_told():
            yield from loader
    except UserError as error:
        raise type(error)(_said_by_worker(error, f"{type(error).__module__}.{type(error).__qualname__}")) from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise UserError(f"training: {_said_by_worker(error, type(error).__name__)}") from error


def _said_by_worker(error: Exception, kind: str) -> str:
    """A reading process sends its traceback as text; the last line is its message."""
    return str(error).strip().splitlines()[-1].removeprefix(f"{kind}: ")


@contextmanager
def lost_workers_told() -> Iterator[None]:
    """Turn PyTorch's error about a data loader process that died, which can come at any time, into one line.

    Raises:
        UserError: with the remedy.
    """
    try:
        yield
    except RuntimeError as error:
        if not _is_about_workers(error):
            raise
        raise UserError(
            "training: a process that reads data was killed, perhaps because memory ran out, or shared memory "
            "(/dev/shm; containers: --shm-size); go on with --resume and fewer --workers, or --workers 0"
        ) from error


def _is_about_workers(error: RuntimeError) -> bool:
    """Whether a data loader says so: its errors have no type of their own, and versions differ in their words."""
    said = str(error)
    shared_memory = any(words in said for words in ("shared memory", "torch_shm", "No space left on device"))
    return said.startswith("DataLoader worker") or (shared_memory and ("Caught" in said or "DataLoader" in said))


def _leave_process_group(worker: int) -> None:
    """A signal to the whole process group must act on the main process only, which saves and ends its readers."""
    if hasattr(os, "setpgrp"):
        os.setpgrp()
