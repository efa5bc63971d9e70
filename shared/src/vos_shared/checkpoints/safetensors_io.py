"""Our weights files: safetensors with text metadata."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise

from vos_shared.atomic import atomic_path
from vos_shared.checkpoints.checking import in_half_precision, require_weights
from vos_shared.errors import BadWeights


def save(
    path: str | Path, state_dict: Mapping[str, torch.Tensor], metadata: Mapping[str, str], *, half: bool = False
) -> None:
    """Write weights, atomically; creates missing folders.

    Args:
        path: path of the file, usually ``.safetensors``.
        state_dict: tensors by name; those that share memory are stored separately.
        metadata: text entries such as method, training data, command, licence.
        half: store floating-point values as float16.

    Raises:
        BadWeights: a value is too large for float16.
        OSError: the file cannot be written.
    """
    path = Path(path)
    state_dict = in_half_precision(state_dict, str(path)) if half else state_dict
    path.parent.mkdir(parents=True, exist_ok=True)
    # safetensors refuses tensors that share memory, so each gets its own.
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in state_dict.items()
    }
    with atomic_path(path) as temporary:
        # `save_file` would ignore the umask and make the file readable by its owner only.
        temporary.write_bytes(serialise(tensors, metadata=dict(metadata)))


def load(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read weights, to the CPU.

    Returns:
        Tensors by name, with floating point converted to float32, and the metadata.

    Raises:
        BadWeights: the file is missing, damaged or not safetensors, or `require_weights` refuses a tensor.
    """
    with _opened(Path(path)) as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        return require_weights(state, path), dict(file.metadata() or {})


def load_network(path: str | Path, network: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read weights as `load` does, and check that the metadata entry ``network`` is `network`.

    Raises:
        BadWeights: as `load`, or the weights are of another network.
    """
    state, metadata = load(path)
    if (found := metadata.get("network", "an unknown network")) != network:
        raise BadWeights(f"{path}: these are weights of {found}, not of {network}")
    return state, metadata


@contextmanager
def other_versions_refused(path: str | Path, method: str) -> Iterator[None]:
    """Turn errors while a network is built from metadata and filled into a `BadWeights` of one line."""
    try:
        yield
    except (KeyError, TypeError, ValueError, RuntimeError) as reason:
        raise BadWeights(f"{path}: written by another version of {method} ({str(reason).splitlines()[0]})") from reason


def read_metadata(path: str | Path) -> dict[str, str]:
    """The metadata of a file.

    Raises:
        BadWeights: the file is missing, damaged or not safetensors.
    """
    with _opened(Path(path)) as file:
        return dict(file.metadata() or {})


class Described:
    """What the metadata of weights say of them; a base of the methods' snapshots.

    Attributes:
        metadata: of the file, by name.
    """

    metadata: Mapping[str, str]

    @property
    def description(self) -> str:
        """Description of the weights."""
        return self.metadata.get("description", "weights without a description")

    @property
    def trained(self) -> bool:
        """Whether the weights were trained."""
        return self.metadata.get("trained", "true") == "true"

    @property
    def shorter_side(self) -> int | None:
        """Pixels that the shorter side of frames is scaled to for these weights; None: frames keep their size."""
        stored = self.metadata.get("shorter_side")
        return int(stored) if stored else None


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise BadWeights(f"no weights file {path}")
    try:
        with safe_open(path, "pt", device="cpu") as file:
            yield file
    except (SafetensorError, OSError, ValueError, KeyError) as reason:
        raise BadWeights(
            f"weights {path} cannot be read as safetensors ({reason}); damaged, or another format?"
        ) from reason
