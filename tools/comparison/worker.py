"""The worker process: one method over its sequences, telling the parent through a pipe how it goes."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import traceback
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType

from comparison.jobs import Job
from comparison.records import SequenceRun
from vos_shared.errors import UserError
from vos_shared.method import discover
from vos_shared.runtime.parents import end_with_parent
from vos_shared.sequence_loop import segment_sequence


@dataclass(frozen=True)
class Loaded:
    """The method is ready."""


@dataclass(frozen=True)
class Began:
    """A sequence was begun; the method may see the whole of it before the first frame is done."""

    sequence: str


@dataclass(frozen=True)
class FrameDone:
    """One more frame is segmented."""


@dataclass(frozen=True)
class Failed:
    """The method cannot go on.

    Attributes:
        reason: one line.
        is_users: something the user can mend (`UserError`), not a defect.
    """

    reason: str
    is_users: bool


@dataclass(frozen=True)
class Finished:
    """All sequences are done."""


Event = Loaded | Began | FrameDone | Failed | Finished


def work(job: Job, connection: Connection) -> None:
    """Run a job; the target of the worker process. Whatever goes wrong is sent as `Failed`."""
    _detach(job.log)
    try:
        _run(job, connection)
    except UserError as error:
        connection.send(Failed(str(error), is_users=True))
    except BaseException as error:  # A stranger's method may raise anything; it becomes the reason in its row.
        traceback.print_exc()
        connection.send(Failed(_reason(error), is_users=False))
        raise SystemExit(1) from None


def _run(job: Job, connection: Connection) -> None:
    method = discover()[0][job.method]
    segmenter = method.load(job.weights, job.device, job.precision, variant=job.variant)
    connection.send(Loaded())
    results = job.results()
    for sequence in job.pending():
        connection.send(Began(sequence.name))
        with results.writer(sequence.name, sequence.frame_names, job.inputs[sequence.name]) as writer:
            timing = segment_sequence(
                segmenter,
                sequence,
                lambda item: writer.write(item.name, item.segmentation.mask),
                supervision=method.supervision,
                device=job.device,
                seed=job.seed,
                on_frame=lambda: connection.send(FrameDone()),
            )
            seconds = timing.prepare_seconds + sum(timing.frame_seconds)
            run = SequenceRun(timing.frames, seconds, timing.peak_memory_bytes)
            writer.extra({"run": asdict(run), "model": asdict(segmenter.info), "timing": timing.to_json()})
    connection.send(Finished())


def _detach(log: Path) -> None:
    """Be a process group of our own that ends with its parent and prints to a file."""
    if hasattr(os, "setsid"):
        os.setsid()
    end_with_parent(group=hasattr(os, "setsid"))
    signal.signal(signal.SIGTERM, _exit)
    with log.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False, buffering=1)
    faulthandler.enable(file=2)


def _exit(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _reason(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "ran out of memory"
    first_line = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first_line}" if first_line else type(error).__name__
