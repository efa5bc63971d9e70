"""Soft masks in files: ``<root>/<sequence>/<id>/<frame>.npy``, float32 [H, W] in 0..1."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from vos_shared.errors import BadResults
from vos_shared.files import open_file
from vos_shared.method import SoftMasks

SoftMask: TypeAlias = npt.NDArray[np.float32]
"""The soft mask of one object, float32 [H, W] in 0..1."""


def write_soft_masks(folder: Path, frame_name: str, soft_masks: SoftMasks) -> None:
    """Write the soft masks of a frame; those of an object from the frame on in which it is first seen.

    Args:
        folder: of the sequence.
        frame_name: of the frame.
        soft_masks: float32 [K, H, W] in 0..1; row k belongs to object id k + 1.
    """
    for object_id, soft_mask in enumerate(soft_masks, start=1):
        target = folder / str(object_id)
        if target.is_dir() or soft_mask.any():
            target.mkdir(parents=True, exist_ok=True)
            _save(target / f"{frame_name}.npy", soft_mask.astype(np.float32, copy=False))


def _save(path: Path, soft_mask: SoftMask) -> None:
    content = BytesIO()
    np.save(content, soft_mask)
    path.write_bytes(content.getbuffer())  # NumPy, writing to a file itself, does not tell that a disk is full.


def objects_with_soft_masks(folder: Path) -> list[int]:
    """Ids of the objects that have soft masks in the folder of a sequence; other files and folders do not matter.

    Raises:
        BadResults: there are none.
    """
    found = sorted(int(path.name) for path in folder.glob("*") if path.name.isdigit() and path.is_dir())
    if not found:
        raise BadResults(
            f"{folder} holds no soft masks; they are <id>/<frame>.npy, as segment --soft-masks writes them"
        )
    return found


def read_soft_mask(folder: Path, object_id: int, frame_name: str) -> SoftMask | None:
    """The soft mask of an object in a frame, float32 [H, W], or None where there is none.

    Raises:
        BadResults: the file is damaged or holds something else.
    """
    path = folder / str(object_id) / f"{frame_name}.npy"
    if not path.is_file():
        return None
    try:
        with open_file(path) as file:
            soft_mask = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as reason:
        raise BadResults(
            f"soft mask {path} cannot be read ({reason}); write it again with segment --soft-masks"
        ) from reason
    if soft_mask.ndim != 2 or soft_mask.dtype.kind != "f":
        raise BadResults(f"soft mask {path} is {soft_mask.dtype} {list(soft_mask.shape)}, not float [H, W]")
    return np.asarray(soft_mask, np.float32)
