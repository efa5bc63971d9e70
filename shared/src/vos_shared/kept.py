"""Files of networks that were fine-tuned on one video, reused while their inputs and settings are the same."""

from __future__ import annotations

import hashlib
from pathlib import Path

from torch import nn

from vos_shared.checkpoints import safetensors_io
from vos_shared.errors import BadWeights

ORIGIN = "origin"
"""Metadata entry of a kept file: the `fingerprint` of what it was made from."""


def fingerprint(*made_from: nn.Module | bytes | object) -> str:
    """Hexadecimal SHA-256 of everything that a fine-tuned network depends on.

    Args:
        made_from: networks (hashed by the names and values of their tensors), bytes (pixels of a frame), and objects
            that are identified by their `repr` (settings, numbers, text).
    """
    digest = hashlib.sha256()
    for part in made_from:
        if isinstance(part, nn.Module):
            for name, value in part.state_dict().items():
                digest.update(name.encode())
                digest.update(value.cpu().contiguous().numpy().tobytes())
        else:
            digest.update(part if isinstance(part, bytes) else repr(part).encode())
    return digest.hexdigest()


def kept_path(folder: Path, video: str, name: str, origin: str) -> Path:
    """Path of a kept network, ``folder/video/name-<start of origin>.safetensors``; other origins give other files."""
    return folder / video / f"{name}-{origin[:8]}.safetensors"


def is_kept(path: Path, origin: str) -> bool:
    """Whether the file exists and its metadata `ORIGIN` is `origin`.

    Raises:
        BadWeights: the file is damaged or holds another network.
    """
    if not path.exists():
        return False
    if safetensors_io.read_metadata(path).get(ORIGIN) != origin:
        raise BadWeights(f"{path} is not a network that was kept here; move it away, or choose another --models")
    return True
