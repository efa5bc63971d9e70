"""Agreement between processes that train together: to continue, to stop, and on the folder of the run."""

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
"""Errors that may occur in a single process: bad input, files that cannot be read or written, lack of memory."""
_ELSEWHERE: Final = "training: another process failed; it says why"
_BROKEN: Final = ".broken"
"""File in the folder of a run: a process has ended without telling the others."""


def most_urgent(code: int, fabric: Fabric) -> int:
    """The largest code of all processes; does not wait for the device."""
    if fabric.world_size == 1:
        return code
    largest = torch.tensor(code)
    torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX, group=_cpu_group())
    return int(largest)


@cache
def _cpu_group() -> Any:
    """A process group on the CPU: one on the GPU would wait until the GPU has finished its work."""
    if torch.distributed.get_backend() == "gloo":
        return None
    return torch.distributed.new_group(backend="gloo", timeout=PATIENCE)


def together(work: Callable[[], T], fabric: Fabric) -> T:
    """Do some work in every process, on each machine first in one of them; if it fails in one, all raise.

    Raises:
        UserError: an error from `work`, or one that says that another process failed.
        OSError: the same.
    """
    with fabric.rank_zero_first(local=True):
        result = attempt(work)
    return agreed(result, fabric)


def agreed(result: T | Exception, fabric: Fabric) -> T:
    """The result of `attempt`, if no process has failed; all processes must call it.

    Raises:
        UserError: the error of this process, or one that says that another process failed.
        OSError: the same.
    """
    if most_urgent(int(isinstance(result, FAILURES)), fabric):
        raise own_or_other(result)
    return result  # type: ignore[return-value]  # It is not a failure.


def attempt(work: Callable[[], T]) -> T | Exception:
    """The result of `work`, or the error of `FAILURES` that it raised."""
    try:
        return work()
    except FAILURES as error:
        return error


def own_or_other(result: object) -> Exception:
    """The error that `attempt` returned, or one that says that another process failed."""
    return result if isinstance(result, FAILURES) else UserError(_ELSEWHERE)


@contextmanager
def only_run(folder: Path, fabric: Fabric) -> Iterator[None]:
    """Lock the folder of a run while the block runs; creates the folder if it is missing.

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
            for rest in folder.glob(".*.partial"):  # Left by a run that was killed while it saved.
                rest.unlink(missing_ok=True)
            (folder / _BROKEN).unlink(missing_ok=True)

        together(acquire, fabric)
        yield


def require_no_run(folder: Path, names: Sequence[str], fabric: Fabric) -> None:
    """Refuse a folder that holds files of a run; all processes check before any of them writes.

    Raises:
        UserError: the folder holds some of the files `names`.
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

    This process (which may be out of memory) breaks the connection, and the next exchange of the others fails.

    Args:
        folder: folder of the run, visible to all processes.
        fabric: a launched Fabric.

    Raises:
        UserError: an exchange failed because another process has ended.
    """
    try:
        yield
    except (UserError, OSError, KeyboardInterrupt):
        raise  # All processes raise the first two; Ctrl-C reaches all.
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
