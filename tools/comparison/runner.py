"""Runs jobs, each in a separate process; a job that fails or crashes does not stop the comparison."""

from __future__ import annotations

import signal
import sys
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from types import FrameType

from tqdm import tqdm

from comparison.events import Began, Event, Failed, FrameDone
from comparison.jobs import Job
from comparison.processes import events_of
from comparison.worker import work


def run_job(job: Job, seconds: float) -> Failed | None:
    """Run a method on its unfinished sequences; finished ones stay in its results folder even if it fails later.

    Args:
        job: what to run.
        seconds: time without progress after which the method is stopped.

    Returns:
        The reason of a failure, or None.
    """
    pending = job.pending()
    if not pending:
        return None
    total, left = (sum(len(sequence.frame_names) for sequence in some) for some in (job.sequences, pending))
    place = "while loading"
    with (
        tqdm(total=total, initial=total - left, desc=job.variant, unit="frame", disable=None) as bar,
        closing(_events(job, seconds)) as events,
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
                case _:
                    pass
    return None


def try_loading(job: Job, seconds: float) -> Failed | None:
    """Load the method in a separate process to find out whether its weights can be used."""
    with closing(_events(replace(job, sequences=()), seconds)) as events:
        return next((event for event in events if isinstance(event, Failed)), None)


def _events(job: Job, seconds: float) -> Generator[Event, None, None]:
    return events_of(work, (job,), job.variant, seconds)


@contextmanager
def ending_on_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the stack like Ctrl-C, so that workers are stopped."""
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.signal(number, _end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
