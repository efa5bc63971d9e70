"""Processes that train together act as one: they agree to go on, to leave, and on whose folder it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import torch
from filelock import FileLock, Timeout

from vos_shared.errors import UserError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from vos_shared.training import StopRequest

T = TypeVar("T")

_END: Final = object()
_FAILURES: Final = (UserError, OSError)
"""What the user can mend; the second comes from files that cannot be read or written."""
_ELSEWHERE: Final = "training: another process cannot go on; it says why"


def on_any_process(wish: bool, fabric: Fabric) -> bool:
    """Whether any process has a wish, such as to stop: all must leave a loop at the same step, or wait forever."""
    total = fabric.all_reduce(torch.tensor(float(wish), device=fabric.device), reduce_op="sum")
    assert isinstance(total, torch.Tensor)
    return total.item() > 0


def together(work: Callable[[], T], fabric: Fabric) -> T:
    """Do some work in every process, in the first of each machine before the others; all succeed, or none goes on.

    Raises:
        UserError: as `work` raised it; in processes where it succeeded, one that says that another failed.
        OSError: the same.
    """
    with fabric.rank_zero_first(local=True):
        result = _attempt(work)
    if on_any_process(isinstance(result, _FAILURES), fabric):
        raise result if isinstance(result, _FAILURES) else UserError(_ELSEWHERE)
    assert not isinstance(result, _FAILURES)
    return result


@contextmanager
def only_run(folder: Path, fabric: Fabric) -> Iterator[None]:
    """Keep other runs out of a folder while the block runs; the folder is made if missing.

    Raises:
        UserError: another run is at it.
        OSError: the folder cannot be made or written.
    """
    lock = FileLock(folder / ".lock")

    def acquire() -> None:
        if not fabric.is_global_zero:
            return
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(f"training: another run is at work in {folder}; let it end, or choose another") from None
        for rest in folder.glob(".*.partial"):  # Of a run that was killed while it saved.
            rest.unlink(missing_ok=True)

    together(acquire, fabric)
    try:
        yield
    finally:
        lock.release()


def require_no_run(folder: Path, names: Sequence[str], fabric: Fabric) -> None:
    """Refuse a folder in which a run has written; all processes look before any of them writes.

    Args:
        folder: of the run to begin.
        names: what runs write.
        fabric: launched.

    Raises:
        UserError: naming what is there.
    """
    found = [name for name in names if (folder / name).exists()]
    fabric.barrier()
    if found:
        raise UserError(
            f"training: {folder} already holds a run ({', '.join(found)}); choose another --output, or add --resume if "
            "its resume.pt is there"
        )


def after_each(items: Iterable[T], work: Callable[[], object]) -> Iterator[T]:
    """The items; each time that one was used, do some work. Within `agreed_items` its errors end all processes."""
    for item in items:
        yield item
        work()


def agreed_items(
    items: Iterable[T], stop: StopRequest, fabric: Fabric, before_error: Callable[[], object]
) -> Iterator[T]:
    """Items until their end, or until any process shall stop or cannot read its next one: at the same item in all.

    Args:
        items: as many in every process.
        stop: of this process.
        fabric: launched.
        before_error: called in every process before the error is raised; the place to save.

    Raises:
        UserError: as `items` raised it; in processes that could read theirs, one that says that another failed.
        OSError: the same.
    """
    iterator = iter(items)
    while True:
        item = _attempt(lambda: next(iterator, _END))
        if item is _END:
            return
        failed = isinstance(item, _FAILURES)
        if on_any_process(failed or stop.wanted, fabric):
            if not on_any_process(failed, fabric):
                return
            before_error()
            raise item if isinstance(item, _FAILURES) else UserError(_ELSEWHERE)
        yield item  # type: ignore[misc]  # Neither the end nor an error.


def _attempt(work: Callable[[], T]) -> T | UserError | OSError:
    try:
        return work()
    except _FAILURES as error:
        return error
