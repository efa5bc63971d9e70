"""Files of ``torch.save``, read without running code from them, and written whole or not at all."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core.multiarray import scalar

from vos_shared.atomic import atomic_path
from vos_shared.errors import BadWeights


def load_torch(path: str | Path) -> Any:
    """Read a file of ``torch.save``, with all tensors on the CPU.

    Allowed are tensors, plain containers, numbers, and NumPy scalars of NumPy 1 and 2 (official training code stores
    its best score as one).

    Raises:
        BadWeights: the file is missing, damaged, or contains anything else, such as code, which is not run.
    """
    path = Path(path)
    if not path.is_file():
        raise BadWeights(f"no weights file {path}")
    _require_size(path)
    try:
        with torch.serialization.safe_globals(_allowed()), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # Unreadable files raise an error below.
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as reason:
        raise BadWeights(_refusal(path, str(reason))) from reason
    except Exception as reason:  # Damage can raise any error; pickle documents no list.
        raise BadWeights(f"weights {path} cannot be read: damaged, cut short, or no file of torch.save") from reason


def _require_size(path: Path) -> None:
    """Raise `BadWeights` for an archive that unpacks to far more than its size; PyTorch does not compress."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return  # The old format is not an archive; damage is found later.
    if unpacked > 2 * path.stat().st_size + 2**20:
        raise BadWeights(f"weights {path} unpack to {unpacked:,} bytes from {path.stat().st_size:,}; not loaded")


def _allowed() -> list[Any]:
    numbers = [np.bool_, *np.sctypeDict.values()]
    types = {type(np.dtype(number)) for number in numbers if np.dtype(number).kind in "biuf"}
    return [np.dtype, *types, scalar, (scalar, "numpy.core.multiarray.scalar")]


def _refusal(path: Path, reason: str) -> str:
    """Torch's message of many lines in one line."""
    name = re.search(r"GLOBAL (\S+)", reason) or re.search(r"(?:class|type|function) ([\w.]+)", reason)
    what = (
        f"more than tensors and numbers ({name[1].rstrip('.')})" if name else "more than tensors and numbers, or damage"
    )
    return f"weights {path} hold {what}; not loaded, since such a file can run code"


def save_torch(path: Path, content: Any) -> None:
    """Write a file of ``torch.save`` atomically.

    Raises:
        OSError: the file cannot be written, for example because the disk is full; an old file stays.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # PyTorch ends its archive after a failed write, and hides the write's own error.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
