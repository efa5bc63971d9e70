"""Soft masks in files: ``<root>/<sequence>/<id>/<frame>.npy``, float32 [H, W] in 0..1."""

from __future__ import annotations

import math
from io import BytesIO
from pathlib import Path
from tokenize import TokenError
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from vos_shared.errors import BadResults
from vos_shared.files import open_file
from vos_shared.method import SoftMasks

SoftMask: TypeAlias = npt.NDArray[np.float32]
"""Soft mask of one object, float32 [H, W] in 0..1."""

_ROUNDING: Final = 1e-3
_HEADERS: Final = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def write_soft_masks(folder: Path, frame_name: str, soft_masks: SoftMasks) -> None:
    """Write the soft masks of a frame; those of an object begin with the first frame in which it is not empty.

    Args:
        folder: folder of the sequence.
        frame_name: name of the frame.
        soft_masks: float32 [K, H, W] in 0..1; row k is object k + 1.
    """
    for object_id, soft_mask in enumerate(soft_masks, start=1):
        target = folder / str(object_id)
        if target.is_dir() or soft_mask.any():
            target.mkdir(parents=True, exist_ok=True)
            _save(target / f"{frame_name}.npy", soft_mask.astype(np.float32, copy=False))


def _save(path: Path, soft_mask: SoftMask) -> None:
    content = BytesIO()
    np.save(content, soft_mask)
    path.write_bytes(content.getbuffer())  # NumPy does not report a full disk when it writes the file.


def objects_with_soft_masks(folder: Path) -> list[int]:
    """Ids of the objects with soft masks in the folder of a sequence; other content is ignored.

    Raises:
        BadResults: there are none.
    """
    names = [path.name for path in folder.glob("*") if path.is_dir()]
    found = sorted(int(name) for name in names if name.isascii() and name.isdecimal())
    if not found:
        raise BadResults(
            f"{folder} holds no soft masks; they are <id>/<frame>.npy, as segment --soft-masks writes them"
        )
    return found


def read_soft_mask(folder: Path, object_id: int, frame_name: str) -> SoftMask | None:
    """Read the soft mask of an object in a frame, float32 [H, W]; None if there is no file.

    Raises:
        BadResults: the file is damaged or not a soft mask, for example with values outside 0..1.
    """
    path = folder / str(object_id) / f"{frame_name}.npy"
    if not path.is_file():
        return None
    try:
        soft_mask = _load(path)
    except (OSError, ValueError, SyntaxError, TokenError) as reason:
        why = str(reason).splitlines()[0]
        raise BadResults(
            f"soft mask {path} cannot be read ({why}); write it again with segment --soft-masks"
        ) from reason
    if soft_mask.ndim != 2 or soft_mask.dtype.kind != "f" or not soft_mask.size:
        raise BadResults(f"soft mask {path} is {soft_mask.dtype} {list(soft_mask.shape)}, not float [H, W]")
    if not (soft_mask.min() >= -_ROUNDING and soft_mask.max() <= 1 + _ROUNDING):  # Also of NaN.
        raise BadResults(
            f"soft mask {path} has values that are not in 0..1: {soft_mask.min():g} to {soft_mask.max():g}"
        )
    return np.asarray(soft_mask, np.float32)


def _load(path: Path) -> npt.NDArray[Any]:
    """Read an .npy file after comparing its size with the header, which may claim terabytes."""
    with open_file(path) as file:
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"version {version} of the format")
        shape, _, dtype = _HEADERS[version](file)
        content = path.stat().st_size - file.tell()
        if math.prod(shape) * dtype.itemsize != content:
            raise ValueError(f"it holds {content} bytes, which are not {dtype} {list(shape)}")
        file.seek(0)
        array: npt.NDArray[Any] = np.load(file, allow_pickle=False)
        return array
