"""Numbers and pictures of a run."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vos_shared.atomic import atomic_path
from vos_shared.errors import MissingExtra
from vos_shared.files import open_file, read_bytes

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TrainingLog:
    """Numbers and pictures of a run: TensorBoard files and `log.jsonl` in one folder.

    On resume, what was logged at or after the first step to come is dropped, so that the log reads as if the run had
    never stopped. Use it as a context manager.

    One process of several writes the log. `check` raises the error that stopped it from doing so; call it where all
    processes ask each other for errors. After an error nothing more is logged.

    Args:
        folder: of the run; created if missing.
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
    if not path.exists():
        return
    kept = [line for line in read_bytes(path).splitlines() if _step_of(line) < first_step]
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"".join(line + b"\n" for line in kept))


def _step_of(line: bytes) -> float:
    """The step of a JSON line; infinity for a line that is damaged, for example cut short by a kill."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return float("inf")
