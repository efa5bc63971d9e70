"""Batches that depend on (seed, step, slot) only, so that a run can be resumed and split over processes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
from torch.utils.data import DataLoader, Dataset

from vos_shared.errors import UserError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

T = TypeVar("T")

_LOST: Final = (
    "training: a process that reads data was killed, perhaps because memory ran out, or shared memory (/dev/shm; "
    "containers: --shm-size); continue with --resume and fewer --workers, or --workers 0"
)


class EpochOrder:
    """The order of the items in each epoch; every epoch has a different random order.

    Args:
        size: number of items.
        seed: seed of the orders; the number of the epoch is appended to it.
    """

    def __init__(self, size: int, *seed: int) -> None:
        self.size = size
        self._seed = seed
        self._epoch = -1

    def __call__(self, epoch: int, place: int) -> int:
        """The item at a place of an epoch, 0 to size - 1."""
        if epoch != self._epoch:
            order = np.random.default_rng([*self._seed, epoch]).permutation(self.size)
            self._order, self._epoch = order.astype(np.uint32), epoch  # [size]; data sets have millions of items.
        return int(self._order[place])


def step_keys(first: int, steps: int, batch: int, rank: int) -> Iterator[list[tuple[int, int]]]:
    """Keys (step, slot) of the batches of one process.

    Args:
        first: the first step.
        steps: total number of steps of the run.
        batch: samples per step and process.
        rank: rank of the process; its slots begin at rank * batch.
    """
    for step in range(first, steps):
        yield [(step, slot) for slot in range(rank * batch, (rank + 1) * batch)]


def read_batches(
    samples: Dataset[T], fabric: Fabric, *, first: int, steps: int, batch: int, workers: int
) -> Iterator[Any]:
    """Batches on the device of this process, read ahead by worker processes.

    Args:
        samples: samples by (step, slot); the slots of all processes are 0 to batch * world size - 1.
        fabric: a launched Fabric.
        first: the first step.
        steps: total number of steps of the run.
        batch: samples per step and process.
        workers: number of reading processes; with 0 this process reads.

    Raises:
        UserError: an error from `samples`, or a reading process was killed.
    """
    keys = step_keys(first, steps, batch, fabric.global_rank)
    for item in load(samples, keys, workers=workers, pin_memory=fabric.device.type == "cuda"):
        yield fabric.to_device(item)


def load(
    samples: Dataset[T], keys: Iterable[Sequence[Any]], *, workers: int, pin_memory: bool = False
) -> Iterator[Any]:
    """Batches of samples, one for each list of keys.

    Raises:
        UserError: an error from `samples`; a file cannot be read; a reading process was killed.
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
    """The items of a data loader; a `UserError` from one of its processes stays a message of one line.

    Raises:
        UserError: an error from the data set; a file cannot be read; a reading process was killed.
    """
    try:
        with lost_workers_told():
            yield from loader
    except UserError as error:
        raise type(error)(_said_by_worker(error, f"{type(error).__module__}.{type(error).__qualname__}")) from error
    except ConnectionError as error:  # The process was killed while it sent a sample.
        raise UserError(_LOST) from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise UserError(f"training: {_said_by_worker(error, type(error).__name__)}") from error


def _said_by_worker(error: Exception, kind: str) -> str:
    """The message of an error in a reading process, which sends its traceback as text: the last line."""
    return str(error).strip().splitlines()[-1].removeprefix(f"{kind}: ")


@contextmanager
def lost_workers_told() -> Iterator[None]:
    """Turn PyTorch's error about a killed data loader process, which can come at any time, into a `UserError`."""
    try:
        yield
    except RuntimeError as error:
        if not _is_about_workers(error):
            raise
        raise UserError(_LOST) from error


def _is_about_workers(error: RuntimeError) -> bool:
    """Whether the error is about a data loader process: only its text says so, which depends on torch's version."""
    said = str(error)
    shared_memory = any(words in said for words in ("shared memory", "torch_shm", "No space left on device"))
    return said.startswith("DataLoader worker") or (shared_memory and ("Caught" in said or "DataLoader" in said))


def _leave_process_group(worker: int) -> None:
    """Let a signal to the process group reach only the main process, which saves and then ends its readers."""
    if hasattr(os, "setpgrp"):
        os.setpgrp()
