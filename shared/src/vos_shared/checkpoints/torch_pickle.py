"""Files that ``torch.save`` wrote, read without running code from them."""

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

from vos_shared.errors import BadWeights


def load_torch(path: str | Path) -> Any:
    """Read a file of ``torch.save``, tensors to the CPU.

    Tensors, plain containers and numbers are allowed, and NumPy scalars, under the module names of NumPy 1 and 2:
    official training code stores its best score as one.

    Raises:
        BadWeights: missing, damaged, or with anything else in it, such as code, which is not run.

    """
    path = Path(path)
    if not path.is_file():
        raise BadWeights(f"no weights file {path}")
    _require_size(path)
    try:
        with torch.serialization.safe_globals(_allowed()), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # What cannot be read is an error below.
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as reason:
        raise BadWeights(_refusal(path, str(reason))) from reason
    except Exception as reason:  # What damage leads to depends on where it is; pickle promises no list of errors.
        raise BadWeights(f"weights {path} cannot be read: damaged, cut short, or no file of torch.save") from reason


def _require_size(path: Path) -> None:
    """Refuse an archive that unpacks to far more than it is; PyTorch's own are not compressed.

    Raises:
        BadWeights: naming it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return  # The old format, which is not an archive, or damage, which is found later.
    if unpacked > 2 * path.stat().st_size + 2**20:
        raise BadWeights(f"weights {path} unpack to {unpacked:,} bytes from {path.stat().st_size:,}; not loaded")


def _allowed() -> list[Any]:
    numbers = [np.bool_, *np.sctypeDict.values()]
    types = {type(np.dtype(number)) for number in numbers if np.dtype(number).kind in "biuf"}
    return [np.dtype, *types, scalar, (scalar, "numpy.core.multiarray.scalar")]


def _refusal(path: Path, reason: str) -> str:
    """What torch says over many lines, in one."""
    name = re.search(r"GLOBAL (\S+)", reason) or re.search(r"(?:class|type|function) ([\w.]+)", reason)
    what = (
        f"more than tensors and numbers ({name[1].rstrip('.')})" if name else "more than tensors and numbers, or damage"
    )
    return f"weights {path} hold {what}; not loaded, since such a file can run code"
