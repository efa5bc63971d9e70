"""Networks that were fine-tuned on one video: kept under its name, and used again while nothing changes."""

from __future__ import annotations

import hashlib
from pathlib import Path

from torch import nn

from vos_shared.checkpoints import safetensors_io
from vos_shared.errors import BadWeights

ORIGIN = "origin"
"""The entry of a kept file's metadata that holds the fingerprint of what it was made from."""


def fingerprint(*made_from: nn.Module | bytes | object) -> str:
    """SHA-256 of everything that a fine-tuned network depends on.

    Args:
        made_from: networks (names and values of their tensors), bytes (a frame's pixels), and anything whose `repr`
            tells its value (settings, numbers, text).

    Returns:
        64 hexadecimal digits.
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
    """Where a network is kept: ``folder/video/name-<start of origin>.safetensors``.

    Other start weights, settings or frames give another file, so they never overwrite each other.
    """
    return folder / video / f"{name}-{origin[:8]}.safetensors"


def is_kept(path: Path, origin: str) -> bool:
    """Whether the network that was made from `origin` lies there; write it with `origin` as metadata `ORIGIN`.

    Raises:
        BadWeights: the file is damaged, or holds another network.
    """
    if not path.exists():
        return False
    if safetensors_io.read_metadata(path).get(ORIGIN) != origin:
        raise BadWeights(f"{path} is not a network that was kept here; move it away, or choose another --models")
    return True
