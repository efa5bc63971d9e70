"""Subfolders and mask files of a folder, with suffixes in any case."""

from __future__ import annotations

import os
from pathlib import Path

from vos_shared.errors import BadMask
from vos_shared.tables import listed

MASK_SUFFIX = ".png"


def subfolders(folder: Path) -> list[Path]:
    """Subfolders sorted by name, without hidden ones; empty if there is no folder."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:  # Needs no system call for each entry.
        return sorted(Path(entry.path) for entry in entries if not entry.name.startswith(".") and entry.is_dir())


def is_mask_file(path: Path) -> bool:
    """Whether the name is that of a mask: ``00000.png`` or ``00000.PNG``, not hidden."""
    return path.suffix.lower() == MASK_SUFFIX and not path.name.startswith(".")


def mask_files(folder: Path) -> dict[str, Path]:
    """Masks of a folder by frame name, sorted; empty if there is no folder.

    Raises:
        BadMask: a frame has two masks, ``00000.png`` and ``00000.PNG``.
    """
    paths = sorted(path for path in folder.iterdir() if is_mask_file(path)) if folder.is_dir() else []
    masks = {path.stem: path for path in paths}
    if len(masks) < len(paths):
        doubles = [path.name for path in paths if masks[path.stem] != path]
        raise BadMask(f"{folder} holds two masks of one frame: {listed(doubles)}; remove one of each")
    return masks
