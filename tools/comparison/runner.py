"""Runs jobs, each in a process of its own, and survives whatever happens to them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from types import FrameType

from tqdm import tqdm

from comparison.jobs import Job
from comparison.worker import Began, Event, Failed, Finished, FrameDone, work

GRACE_SECONDS = 5.0


def run_job(job: Job) -> Failed | None:
    """Run a method over its unfinished sequences; what it finishes stays in its results folder whatever comes later.

    Returns:
        Why it could not go on, or None if it did all.
    """
    pending = job.pending()
    if not pending:
        return None
    total, left = (sum(len(sequence.frame_names) for sequence in some) for some in (job.sequences, pending))
    place = "while loading"
    with (
        tqdm(total=total, initial=total - left, desc=job.variant, unit="frame", disable=None) as bar,
        closing(_events(job)) as events,
    ):
        for event in events:
            match event:
                case Began(sequence):
                    place = f"in {sequence}"
                    bar.set_postfix_str(sequence)
                    if bar.disable:
                        print(f"{job.variant}: {sequence}", file=sys.stderr)
                case FrameDone():
                    bar.update()
                case Failed(reason, is_users):
                    finished = len(job.sequences) - len(job.pending())
                    done = f"{finished} of {len(job.sequences)} sequences finished"
                    return Failed(f"{reason}; {place}, {done}, log in {job.log}", is_users)
                case Finished():
                    pass
    return None


def try_loading(job: Job) -> Failed | None:
    """Load the method in a process of its own and end; tells whether its weights can be used."""
    with closing(_events(replace(job, sequences=()))) as events:
        return next((event for event in events if isinstance(event, Failed)), None)


def _events(job: Job) -> Generator[Event, None, None]:
    """Start the worker and pass on what it tells; the last event is `Finished` or `Failed`. Stops it when closed."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(job, sender), name=job.variant)
    process.start()
    sender.close()
    try:
        event: Event | None = None
        while not isinstance(event, Finished | Failed):
            wait([receiver, process.sentinel])  # Both: children of a dead worker may hold its end of the pipe open.
            try:
                event = receiver.recv() if receiver.poll() else None
            except EOFError:
                event = None
            if event is None:
                process.join()
                event = Failed(_cause_of_death(process.exitcode or 0), is_users=False)
            yield event
    finally:
        _stop(process)
        receiver.close()


def _cause_of_death(exit_code: int) -> str:
    """Why a process ended that did not say so itself."""
    if exit_code >= 0:
        return f"its process ended by itself with exit code {exit_code}"
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = f"signal {-exit_code}"
    if name == "SIGKILL":
        return "its process was killed (SIGKILL), most likely because the machine ran out of memory"
    return f"its process crashed ({name})"


def _stop(process: SpawnProcess) -> None:
    """End a worker and its children; politely first, so that it removes what it has half written."""
    for name in ("SIGTERM", "SIGKILL"):  # Windows has only the first.
        if not process.is_alive():
            break
        try:
            os.killpg(process.pid or 0, getattr(signal, name))
        except (ProcessLookupError, AttributeError):  # It has no group of its own yet, or this system has none.
            process.kill()
        process.join(GRACE_SECONDS)
    process.join()
    process.close()


@contextmanager
def ending_on_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the stack as Ctrl-C does, so that workers are stopped."""
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.signal(number, _end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
