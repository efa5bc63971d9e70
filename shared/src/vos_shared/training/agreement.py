"""Processes that train together act as one: they agree to go on, to leave, and on whose folder it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import torch

from vos_shared.errors import UserError
from vos_shared.locks import locked
from vos_shared.runtime.distributed import PATIENCE

if TYPE_CHECKING:
    from lightning_fabric import Fabric

T = TypeVar("T")

FAILURES: Final = (UserError, OSError, MemoryError, torch.OutOfMemoryError)
"""What can fail in one process alone: input, files that cannot be read or written, lack of memory."""
_ELSEWHERE: Final = "training: another process cannot go on; it says why"
_BROKEN: Final = ".broken"
"""In the folder of a run: a process has ended without telling the others."""


def most_urgent(code: int, fabric: Fabric) -> int:
    """The largest code of all processes; the device is not waited for."""
    if fabric.world_size == 1:
        return code
    largest = torch.tensor(code)
    torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX, group=_cpu_group())
    return int(largest)


@cache
def _cpu_group() -> Any:
    """A group that does not need the GPU, which would have to finish its work first."""
    if torch.distributed.get_backend() == "gloo":
        return None
    return torch.distributed.new_group(backend="gloo", timeout=PATIENCE)


def on_any_process(wish: bool, fabric: Fabric) -> bool:
    """Whether any process asks, for example, to stop: all must leave a loop at the same step, or wait forever."""
    return most_urgent(int(wish), fabric) > 0


def together(work: Callable[[], T], fabric: Fabric) -> T:
    """Do some work in every process, in the first of each machine before the others; all succeed, or none goes on.

    Raises:
        UserError: as `work` raised it; in processes where it succeeded, one that says that another failed.
        OSError: the same.
    """
    with fabric.rank_zero_first(local=True):
        result = attempt(work)
    if on_any_process(isinstance(result, FAILURES), fabric):
        raise own_or_other(result)
    return result  # type: ignore[return-value]  # It is not a failure.


def attempt(work: Callable[[], T]) -> T | Exception:
    """What `work` returns, or the failure that it raises."""
    try:
        return work()
    except FAILURES as error:
        return error


def own_or_other(result: object) -> Exception:
    """The failure that `attempt` gave, or one that says that another process has failed."""
    return result if isinstance(result, FAILURES) else UserError(_ELSEWHERE)


@contextmanager
def only_run(folder: Path, fabric: Fabric) -> Iterator[None]:
    """Keep other runs out of a folder while the block runs; creates the folder if it is missing.

    Raises:
        UserError: another run uses the folder.
        OSError: the folder cannot be created or written.
    """
    with ExitStack() as stack:

        def acquire() -> None:
            if not fabric.is_global_zero:
                return
            folder.mkdir(parents=True, exist_ok=True)
            if stack.enter_context(locked(folder / ".lock", seconds=0)) is False:
                raise UserError(f"training: another run uses {folder}; wait for its end, or choose another folder")
            for rest in folder.glob(".*.partial"):  # Of a run that was killed while it saved.
                rest.unlink(missing_ok=True)
            (folder / _BROKEN).unlink(missing_ok=True)

        together(acquire, fabric)
        yield


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


@contextmanager
def leaving_others(folder: Path, fabric: Fabric) -> Iterator[None]:
    """If the block raises an error that the other processes do not know of, end them, too.

    A process that runs out of memory breaks the connection, and what the others exchange next fails.

    Args:
        folder: of the run, which all processes see.
        fabric: launched.

    Raises:
        UserError: another process has left, so an exchange failed.
    """
    try:
        yield
    except (UserError, OSError, KeyboardInterrupt):
        raise  # Agreed upon, or sent to all.
    except BaseException as error:
        if fabric.world_size == 1:
            raise
        if type(error) is RuntimeError and (folder / _BROKEN).exists():
            raise UserError(_ELSEWHERE) from error
        with suppress(OSError):
            (folder / _BROKEN).touch()
        group = torch.distributed.distributed_c10d
        if torch.distributed.is_initialized() and hasattr(group, "_abort_process_group"):
            group._abort_process_group()
        raise
