"""What training loops share: resume, checkpoint cadence, logs, best snapshots, progress; the loops are the methods'."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from vos_shared.atomic import atomic_path, write_json
from vos_shared.checkpoints.torch_pickle import load_torch
from vos_shared.errors import BadWeights, MissingExtra, UserError
from vos_shared.runtime.seeding import random_state, set_random_state

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


T = TypeVar("T")


class ResumeFile:
    """The one file from which a killed run goes on, rewritten every few minutes.

    Args:
        path: where it lies.
        minutes: wall time between two writes that `due` asks for; 0 is always due.
    """

    def __init__(self, path: Path, minutes: float = 5.0) -> None:
        self.path = path
        self.minutes = minutes
        self._written = time.monotonic()

    def due(self) -> bool:
        """Whether the last write is long enough ago."""
        return time.monotonic() - self._written >= 60 * self.minutes

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the file in one step; a kill at any time leaves the old or the new one whole.

        Args:
            state: tensors, state dicts and plain values only: nothing that needs code to be read back.
        """
        with atomic_path(self.path) as temporary:
            torch.save({**state, "random": random_state()}, temporary)
        self._written = time.monotonic()

    def load(self) -> dict[str, Any]:
        """Read the state back and set the random generators as they were.

        Raises:
            BadWeights: the file is missing, damaged or no resume file.
        """
        state = load_torch(self.path)
        if not isinstance(state, dict) or "random" not in state:
            raise BadWeights(f"{self.path}: no resume file of a training run; give the one that the run itself wrote")
        set_random_state(state.pop("random"))
        return state


class TrainingLog:
    """Numbers and pictures of a run: TensorBoard files and `log.jsonl` in one folder.

    On resume, what was logged at or after the first step to come is dropped, so that the log reads as if the run had
    never stopped. Use it as a context manager.

    One process of several writes the log. What stops it from doing so is told by `check`, which belongs where all of
    them ask each other for errors; from then on nothing is logged.

    Args:
        folder: of the run; made if missing.
        first_step: the first step that will be logged.
        enabled: False for the ranks that keep quiet.

    Raises:
        MissingExtra: TensorBoard is not installed.
    """

    def __init__(self, folder: Path, first_step: int = 0, *, enabled: bool = True) -> None:
        self.path = folder / "log.jsonl"
        self._writer: SummaryWriter | None = None
        self._error: OSError | None = None
        make_writer = _summary_writer()  # In all processes, so that all of them find out if it is not installed.
        if not enabled:
            return
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = make_writer(str(folder / "tensorboard"), purge_step=first_step or None)
        _drop_lines_from(self.path, first_step)

    def scalars(self, step: int, values: Mapping[str, float], **context: float | str) -> None:
        """Log numbers by tag ("train/temp"); `context` (epoch, seconds) goes into the JSON line only."""
        if self._writer is None or self._error is not None:
            return
        try:
            for tag, value in values.items():
                self._writer.add_scalar(tag, value, step)
            with self.path.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps({"step": step, **context, **values}) + "\n")
        except OSError as error:
            self._error = error

    def picture(self, step: int, tag: str, image: npt.NDArray[np.uint8]) -> None:
        """Log a picture, uint8 RGB [H, W, 3], to TensorBoard."""
        if self._writer is None or self._error is not None:
            return
        try:
            self._writer.add_image(tag, image, step, dataformats="HWC")
        except OSError as error:
            self._error = error

    def check(self) -> None:
        """Tell what went wrong.

        Raises:
            OSError: the log cannot be written.
        """
        if self._error is not None:
            raise self._error

    def __enter__(self) -> TrainingLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:  # fmt: skip
        if self._writer is not None:
            self._writer.close()


def _summary_writer() -> type[SummaryWriter]:
    try:
        # TensorBoard would import TensorFlow where that is installed: ten seconds for nothing, and see `tensorflow.py`.
        sys.modules.setdefault("tensorboard.compat.notf", ModuleType("notf"))
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtra(
            "training logs need TensorBoard, which is not installed; install the package with its `train` extra"
        ) from error
    return SummaryWriter


def _drop_lines_from(path: Path, first_step: int) -> None:
    if not path.is_file():
        return
    kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _step_of(line) < first_step]
    with atomic_path(path) as temporary:
        temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")


def _step_of(line: str) -> float:
    """The step of a JSON line; infinity for a line that a kill cut short."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


class RunningMeans:
    """Means of numbers over the steps since the last look; part of what a resumed run must remember.

    Args:
        state: of another one, from `state`.
    """

    def __init__(self, state: Mapping[str, Sequence[float]] | None = None) -> None:
        self._sums = {name: (float(total), int(count)) for name, (total, count) in (state or {}).items()}

    def add(self, values: Mapping[str, float]) -> None:
        """Count the numbers of one step."""
        for name, value in values.items():
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = (total + value, count + 1)

    def take(self) -> dict[str, float]:
        """The means; counting begins anew."""
        means = {name: total / count for name, (total, count) in self._sums.items()}
        self._sums = {}
        return means

    def state(self) -> dict[str, list[float]]:
        """Sum and count of each number."""
        return {name: [total, count] for name, (total, count) in self._sums.items()}


class BestSnapshots:
    """Keeps the snapshots that improved the score, the last few of them.

    Args:
        folder: of the snapshots, with `scores.json` that lists them in order of time.
        keep: how many; the oldest improvement is removed first.
    """

    def __init__(self, folder: Path, keep: int = 3) -> None:
        self.folder = folder
        self.keep = keep
        self._list = folder / "scores.json"
        self._resumed_best: float | None = None

    def entries(self) -> list[tuple[str, float]]:
        """File names and scores, each better than the one before."""
        if not self._list.is_file():
            return []
        try:
            return [(str(name), float(score)) for name, score in json.loads(self._list.read_text(encoding="utf-8"))]
        except (ValueError, TypeError):
            raise BadWeights(f"{self._list} is damaged; remove {self.folder} to keep the best snapshots anew") from None

    @property
    def best(self) -> float | None:
        """The best score so far, also where its file has been removed."""
        entries = self.entries()
        return entries[-1][1] if entries else self._resumed_best

    def drop_beyond(self, best: float | None) -> None:
        """Forget improvements beyond `best`, the best score that a resumed run knows of: it will make them again.

        They may have been enough to remove the file of `best`; that score must be beaten all the same.
        """
        self._resumed_best = best
        kept = [(name, score) for name, score in self.entries() if best is not None and score <= best]
        if self._list.is_file():
            write_json(self._list, kept)

    def offer(self, score: float, name: str, write: Callable[[Path], None]) -> bool:
        """Keep a snapshot if it beats the best so far.

        Args:
            score: larger is better.
            name: file name inside the folder.
            write: writes the file.

        Returns:
            Whether it was kept.
        """
        if self.best is not None and score <= self.best:
            return False
        self.folder.mkdir(parents=True, exist_ok=True)
        write(self.folder / name)
        entries = [*self.entries(), (name, score)]
        kept, removed = entries[-self.keep :], entries[: -self.keep]
        write_json(self._list, kept)
        for old, _ in removed:
            (self.folder / old).unlink(missing_ok=True)
        return True


class StopRequest:
    """Turns the first SIGTERM or Ctrl-C into a wish to stop after the running step; the second one acts as usual.

    Use it as a context manager in the main thread and look at `wanted` between steps.
    """

    def __init__(self) -> None:
        self.wanted = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:  # fmt: skip
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.wanted = True
        signal.signal(number, self._before[number])


def worker_items(loader: Iterable[T]) -> Iterator[T]:
    """The items of a data loader; errors of the user that its worker processes meet stay one line.

    Raises:
        UserError: as the data set raised it; a file cannot be read; a worker was killed while it was waited for.
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
    """A worker's error arrives with its traceback as text; the last line is what it said."""
    return str(error).strip().splitlines()[-1].removeprefix(f"{kind}: ")


@contextmanager
def lost_workers_told() -> Iterator[None]:
    """Turn PyTorch's news that a worker of a data loader died, which may come at any time, into one line.

    Raises:
        UserError: with what helps.
    """
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise UserError(
            "training: a process that reads data was killed, perhaps for want of memory, or of shared memory "
            "(/dev/shm); go on with --resume and fewer --workers"
        ) from error


def is_finite(network: torch.nn.Module) -> bool:
    """Whether all parameters are numbers; after a step that went astray the loss tells it only at the next one."""
    return all(bool(parameter.isfinite().all()) for parameter in network.parameters())


def leave_process_group(worker: int) -> None:
    """For ``DataLoader(worker_init_fn=..)``: a signal for the whole group shall reach the main process alone.

    That one finishes its step, saves, and then ends its workers.
    """
    if hasattr(os, "setpgrp"):
        os.setpgrp()


def progress_bar(steps: int, first_step: int = 0, *, enabled: bool = True) -> tqdm[Any]:
    """A bar over training steps with the time left, counted from `first_step` of `steps`."""
    return tqdm(total=steps, initial=first_step, unit="step", disable=not enabled, dynamic_ncols=True, smoothing=0.05)
