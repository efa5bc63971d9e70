"""Processes that run code of any installed package: started, watched, and ended in every case."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Generator
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import FrameType
from typing import Any

from comparison.events import Event, Failed, Finished
from vos_shared.files import open_file
from vos_shared.runtime.parents import end_with_parent

GRACE_SECONDS = 5.0
"""Seconds that a process gets to end by itself, and again after SIGTERM."""
LOOK_SECONDS = 0.5


class Stopped(BaseException):
    """Raised in a worker by SIGTERM; it unwinds the stack, so that half-written files are removed."""


def events_of(
    target: Callable[..., None], arguments: tuple[Any, ...], name: str, seconds: float
) -> Generator[Event, None, None]:
    """Start a process and yield its events; the last one is `Finished` or `Failed`. Closing the generator ends it.

    Args:
        target: what the process runs; gets the arguments and a connection to send events to.
        arguments: for the target.
        name: of the process.
        seconds: time without any event after which the process is stopped.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=target, args=(*arguments, sender), name=name)
    process.start()
    sender.close()
    event: Event | None = None
    try:
        while not isinstance(event, Finished | Failed):
            event = _next_event(receiver, process, seconds)
            yield event
    finally:
        if isinstance(event, Finished | Failed):  # It ends by itself and may still print the reason of its failure.
            _wait_for_end(process)
        _stop(process)
        receiver.close()


def _next_event(receiver: Connection, process: SpawnProcess, seconds: float) -> Event:
    """Wait for an event. Children of a dead worker may hold its pipes open, so its state is polled as well."""
    end = time.monotonic() + seconds
    while True:
        is_alive = process.is_alive()  # Checked before the pipe, so that the last event is not missed.
        try:
            if receiver.poll(0 if not is_alive else max(0.0, min(LOOK_SECONDS, end - time.monotonic()))):
                event: Event = receiver.recv()
                return event
        except (EOFError, OSError):
            process.join()
            is_alive = False
        if not is_alive:
            return Failed(_cause_of_death(process.exitcode or 0), is_users=False)
        if time.monotonic() >= end:
            return Failed(f"stopped after {seconds:g} s without progress (see --patience)", is_users=False)


def _cause_of_death(exit_code: int) -> str:
    """The reason why a process ended without a last event."""
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
    """End a worker and its children; with SIGTERM first, so that it removes half-written files."""
    if process.is_alive():
        _signal_group(process, "SIGTERM")
        _wait_for_end(process)
    _signal_group(process, "SIGKILL")  # Includes the children of a dead worker.
    process.join()
    process.close()


def _wait_for_end(process: SpawnProcess) -> None:
    """Does not use `join`, which would wait for the worker's children as well."""
    end = time.monotonic() + GRACE_SECONDS
    while process.is_alive() and time.monotonic() < end:
        wait([process.sentinel], 0.02)


def _signal_group(process: SpawnProcess, name: str) -> None:
    assert process.pid, "it was started"  # Group 0 would be our own.
    try:
        os.killpg(process.pid, getattr(signal, name))
    except (ProcessLookupError, PermissionError, AttributeError):  # It has no group yet, or the system has none.
        process.kill()


def detach(log: Path) -> None:
    """Make this process a group of its own, ending with its parent and printing to a file."""
    if hasattr(os, "setsid"):
        os.setsid()
    end_with_parent(group=True)
    signal.signal(signal.SIGTERM, _raise_stopped)
    with open_file(log, "ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False, buffering=1)
    faulthandler.enable(file=2)


def _raise_stopped(_number: int, _frame: FrameType | None) -> None:
    raise Stopped
