"""Our weight files: safetensors, with metadata in words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise

from vos_shared.atomic import atomic_path
from vos_shared.errors import BadWeights


def save(path: str | Path, state_dict: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Write weights, atomically; folders that lack are made.

    Args:
        path: where to; ``.safetensors`` by custom.
        state_dict: tensors by name. Tensors that share memory are stored each by itself.
        metadata: what the weights are: method, training data, command, licence, ..

    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # safetensors refuses tensors that share memory, so each gets its own.
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in state_dict.items()
    }
    with atomic_path(path) as temporary:
        # Not `save_file`, which leaves the file to its owner alone whatever the umask says.
        temporary.write_bytes(serialise(tensors, metadata=dict(metadata)))


def load(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read weights, to the CPU.

    Returns:
        Tensors by name, and the metadata.

    Raises:
        BadWeights: missing, damaged, or no safetensors file.

    """
    path = Path(path)
    if not path.is_file():
        raise BadWeights(f"no weights file {path}")
    try:
        with safe_open(path, "pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as reason:
        raise BadWeights(
            f"weights {path} cannot be read as safetensors ({reason}); damaged, or another format?"
        ) from reason
