"""Weights in NumPy's ``.npz`` files, to which Keras models can be converted."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError
from typing import Any, Final
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from vos_shared.checkpoints.checking import require_finite
from vos_shared.errors import BadWeights
from vos_shared.files import open_file

_DAMAGE: Final = (
    *(OSError, ValueError, EOFError, TypeError, AttributeError, KeyError, BadZipFile, zlib.error),
    *(RuntimeError, SyntaxError, TokenError),
)
"""Errors from damaged files: RuntimeError for unknown compression, the last two for array headers."""


@contextmanager
def fitting(path: str | Path) -> Iterator[None]:
    """Turn shape errors while arrays of a file are copied into a network into a `BadWeights` that names the file."""
    try:
        yield
    except (RuntimeError, ValueError) as reason:  # The first line of PyTorch's message only names the class.
        lines = [line.strip() for line in str(reason).splitlines()]
        raise BadWeights(f"{path} does not fit the network: {lines[min(1, len(lines) - 1)]}") from reason


def read_npz(path: str | Path) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a file, by name.

    Raises:
        BadWeights: the file is missing, damaged or of another format, or values are not finite floating-point numbers.
    """
    try:
        with open_file(path) as file, np.load(file, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
    except _DAMAGE as reason:
        why = (str(reason) or type(reason).__name__).splitlines()[0]
        raise BadWeights(f"{path} cannot be read as an npz file ({why})") from reason
    except MemoryError:
        raise BadWeights(f"{path} claims arrays larger than memory; is it damaged?") from None
    for name, array in found.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
            kind = getattr(array, "dtype", "no array")
            raise BadWeights(f"{path}: {name} is {kind}; weights are floating-point numbers")
    require_finite(found, path)
    return found
