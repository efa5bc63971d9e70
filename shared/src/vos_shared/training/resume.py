"""The file from which a killed run goes on."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vos_shared.atomic import atomic_path
from vos_shared.checkpoints.torch_pickle import load_torch
from vos_shared.errors import BadWeights


class ResumeFile:
    """The one file from which a killed run goes on, rewritten every few minutes.

    Args:
        path: of the file.
        minutes: wall time between two writes that `due` asks for; 0 is always due.
    """

    def __init__(self, path: Path, minutes: float = 5.0) -> None:
        self.path = path
        self.minutes = minutes
        self._written = time.monotonic()

    def due(self) -> bool:
        """Whether the last write is long enough ago."""
        return time.monotonic() - self._written >= 60 * self.minutes

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the file in one step; a kill at any time leaves the old or the new one whole.

        Args:
            state: tensors, state dicts and plain values only: nothing that needs code to be read back.

        Raises:
            OSError: the file cannot be written, for example because the disk is full; the old one stays.
        """
        # Not to the path: PyTorch's own writer turns a full disk into a RuntimeError of many lines.
        with atomic_path(self.path) as temporary, temporary.open("wb") as file:
            torch.save({**state, "digest": _digest(state)}, file)
        self._written = time.monotonic()

    def load(self) -> dict[str, Any]:
        """Read the state back.

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
    """Changes when any value does: training must not go on from damaged or changed values."""
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
