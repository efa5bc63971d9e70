"""The log of a training run: numbers and pictures."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vos_shared.atomic import atomic_path
from vos_shared.errors import MissingExtra
from vos_shared.files import open_file, read_bytes

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TrainingLog:
    """Writes TensorBoard files and ``log.jsonl`` to the folder of a run; use it as a context manager.

    On resume, entries at or after the first step are dropped, so that the log reads as if the run had never stopped.

    Only one process writes the log. After an error it logs nothing more; `check` raises the error, at a point where all
    processes exchange their errors.

    Args:
        folder: folder of the run; created if missing.
        first_step: the first step that will be logged.
        enabled: False in the processes that do not write.

    Raises:
        MissingExtra: TensorBoard is not installed.
    """

    def __init__(self, folder: Path, first_step: int = 0, *, enabled: bool = True) -> None:
        self.path = folder / "log.jsonl"
        self._writer: SummaryWriter | None = None
        self._error: OSError | None = None
        make_writer = _summary_writer()  # In all processes, so that all raise MissingExtra.
        if not enabled:
            return
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = make_writer(str(folder / "tensorboard"), purge_step=first_step or None)
        _drop_lines_from(self.path, first_step)

    def scalars(self, step: int, values: Mapping[str, float], **context: float | str) -> None:
        """Log numbers by tag, such as ``train/temp``; `context` (epoch, seconds) is written to ``log.jsonl`` only."""
        if self._writer is None or self._error is not None:
            return
        try:
            for tag, value in values.items():
                self._writer.add_scalar(tag, value, step)
            with open_file(self.path, "ab") as lines:
                lines.write(json.dumps({"step": step, **context, **values}).encode() + b"\n")
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
        """Raise the error that stopped the log.

        Raises:
            OSError: the log cannot be written.
        """
        if self._error is not None:
            raise self._error

    def __enter__(self) -> TrainingLog:
        return self

    def __exit__(self, *raised: object) -> None:
        if self._writer is not None:
            self._writer.close()


def _summary_writer() -> type[SummaryWriter]:
    try:
        # Keeps TensorBoard from importing TensorFlow, which takes ten seconds (and see `checkpoints/tensorflow.py`).
        sys.modules.setdefault("tensorboard.compat.notf", ModuleType("notf"))
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtra(
            "training logs need TensorBoard, which is not installed; install the package with its `train` extra"
        ) from error
    return SummaryWriter


def _drop_lines_from(path: Path, first_step: int) -> None:
    if not path.exists():
        return
    kept = [line for line in read_bytes(path).splitlines() if _step_of(line) < first_step]
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"".join(line + b"\n" for line in kept))


def _step_of(line: bytes) -> float:
    """The step of a JSON line; infinity for a damaged line, for example one that a kill cut short."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return float("inf")
