"""Stores the arrays of the frames of a video in a temporary file, so that memory does not grow with the video."""

from __future__ import annotations

import errno
import math
import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vos_shared.errors import UserError

Array = npt.NDArray[Any]

SoftMask = npt.NDArray[np.uint8]
"""Soft mask as uint8 [h, w]: 255 times the soft mask, rounded."""

_REMEDY: Final = "set TMPDIR to a folder with more space"


def check_space(needed: int) -> None:
    """Check before long work that temporary files have space.

    Args:
        needed: bytes of all of them.

    Raises:
        UserError: they do not.
    """
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"the folder for temporary files {folder} has {free / 1e6:,.0f} MB free and {needed / 1e6:,.0f} MB are "
            f"needed; {_REMEDY}"
        )


class FrameFile:
    """Arrays of one shape and type by frame index, for any number of threads.

    The file is deleted with the object, and when the process ends.

    Args:
        shape: shape of the array of one frame.
        dtype: type of its values.

    Raises:
        UserError: the folder for temporary files (TMPDIR) is full.
    """

    def __init__(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self._shape, self._dtype = shape, np.dtype(dtype)
        self._planes = math.prod(shape[:-2])
        self._bytes = math.prod(shape) * self._dtype.itemsize
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  # Closed by the finalizer.
        weakref.finalize(self, self._file.close)
        self._lock = threading.Lock()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, array: Array) -> None:
        """Add the array of the next frame."""
        self[self._count] = array

    def __setitem__(self, index: int, array: Array) -> None:
        content = np.ascontiguousarray(array, self._dtype).data.cast("B")
        if len(content) != self._bytes:
            raise ValueError(f"an array of shape {array.shape} in a file of {self._shape}")
        with self._lock:
            self._write(content, index * self._bytes)
            self._count = max(self._count, index + 1)

    def __iter__(self) -> Iterator[Array]:
        return (self[index] for index in range(self._count))

    def __getitem__(self, index: int) -> Array:
        array: Array = self.read(slice(index, index + 1))[0]
        return array

    def read(self, frames: slice) -> Array:
        """Read the arrays of some frames, [t, ...]."""
        count = frames.stop - frames.start
        if not 0 <= frames.start < frames.stop <= self._count:
            raise IndexError(f"frames {frames.start} to {frames.stop - 1} of {self._count}")
        arrays = np.empty((count, *self._shape), self._dtype)
        with self._lock:
            self._fill(arrays, frames.start * self._bytes)
        return arrays

    def columns(self, pixels: slice) -> Array:
        """Read some pixels of every frame, [T, ..., pixels]; a slice of the last two axes, flattened."""
        columns = np.empty((self._count, self._planes, pixels.stop - pixels.start), self._dtype)
        with self._lock:
            for offset, row in zip(self._offsets(pixels), columns.reshape(-1, columns.shape[-1]), strict=True):
                self._fill(row, offset)
        return columns.reshape(self._count, *self._shape[:-2], -1)

    def write_columns(self, pixels: slice, columns: Array) -> None:
        """Write some pixels of every frame of a file with no more axes than two; the counterpart of `columns`.

        Args:
            pixels: slice of the flattened array of a frame.
            columns: [T, pixels].
        """
        content = np.ascontiguousarray(columns, self._dtype)
        with self._lock:
            self._count = len(content)
            for offset, row in zip(self._offsets(pixels), content, strict=True):
                self._write(row.data.cast("B"), offset)

    def _offsets(self, pixels: slice) -> Iterator[int]:
        """Where some pixels of each plane of each frame begin."""
        size = self._bytes // self._planes
        first = pixels.start * self._dtype.itemsize
        return (plane * size + first for plane in range(self._count * self._planes))

    def _write(self, content: memoryview, offset: int) -> None:
        self._file.seek(offset)
        try:
            while content:  # An unbuffered file may write less than all.
                content = content[self._file.write(content) :]
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                raise
            raise UserError(f"the folder for temporary files {tempfile.gettempdir()} is full; {_REMEDY}") from error

    def _fill(self, array: Array, offset: int) -> None:
        self._file.seek(offset)
        content = array.data.cast("B")
        while content:
            count = self._file.readinto(content)
            if not count:
                raise OSError("the temporary file of VideoPCA was cut short")
            content = content[count:]
