"""Soft masks of a long video in a temporary file, so that memory does not grow with the video."""

from __future__ import annotations

import tempfile
import threading
import weakref
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

SoftMask = npt.NDArray[np.uint8]
"""How much of an object each pixel is, uint8 [h, w]: 255 times the soft mask, rounded."""


class SoftMaskFile:
    """Soft masks by frame index, for any number of threads; the file goes when the object or the process does.

    Args:
        masks: of all frames, of one size.

    Raises:
        OSError: the folder for temporary files (TMPDIR) is full.
    """

    def __init__(self, masks: Iterable[SoftMask]) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # Closed by the finalizer.
        weakref.finalize(self, self._file.close)
        self._lock = threading.Lock()
        self._count, self._shape = 0, (0, 0)
        for mask in masks:
            self._file.write(mask.tobytes())
            self._count, self._shape = self._count + 1, mask.shape

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> SoftMask:
        if not 0 <= index < self._count:
            raise IndexError(f"soft mask {index} of {self._count}")
        height, width = self._shape
        with self._lock:  # While one thread segments, another writes.
            self._file.seek(index * height * width)
            content = self._file.read(height * width)
        # Of a bytearray, as native code may refuse arrays that are read-only.
        return np.frombuffer(bytearray(content), np.uint8).reshape(height, width)
