"""The file from which a stopped run is resumed."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vos_shared.checkpoints.torch_pickle import load_torch, save_torch
from vos_shared.errors import BadWeights


class ResumeFile:
    """The file from which a stopped or killed run is resumed.

    Args:
        path: path of the file.
        minutes: wall time after which the next write is `due`; with 0 it always is.
    """

    def __init__(self, path: Path, minutes: float = 5.0) -> None:
        self.path = path
        self.minutes = minutes
        self._written = time.monotonic()

    def due(self) -> bool:
        """Whether it is time to write the file again."""
        return time.monotonic() - self._written >= 60 * self.minutes

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the file atomically: after a kill, either the old or the new file is there.

        Args:
            state: tensors, state dicts and plain values only, so that reading it runs no code.

        Raises:
            OSError: the file cannot be written, for example because the disk is full; the old file stays.
        """
        save_torch(self.path, {**state, "digest": _digest(state)})
        self._written = time.monotonic()

    def load(self) -> dict[str, Any]:
        """Read the state.

        Raises:
            BadWeights: the file is missing, damaged, changed, or not a resume file.
        """
        state = load_torch(self.path)
        if not isinstance(state, dict) or "step" not in state:
            raise BadWeights(f"{self.path} is not the resume file of a training run; give the one that a run wrote")
        if state.pop("digest", None) != _digest(state):
            raise BadWeights(f"{self.path} is damaged, or of another version; begin again in another --output")
        return state


def _digest(state: Mapping[str, Any]) -> str:
    """SHA-256 of all names, types, shapes and values: training must not continue from damaged values."""
    digest = hashlib.sha256()

    def add(value: object) -> None:
        if isinstance(value, Tensor):
            digest.update(f"{value.dtype} {tuple(value.shape)} ".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        elif isinstance(value, Mapping):
            for name, item in value.items():
                digest.update(f"{name!r}: ".encode())
                add(item)
        elif isinstance(value, list | tuple):
            digest.update(f"{len(value)} items ".encode())
            for item in value:
                add(item)
        else:
            digest.update(f"{value!r} ".encode())

    add(state)
    return digest.hexdigest()
