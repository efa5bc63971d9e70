"""Weights: our safetensors, which know their network, and official TensorFlow checkpoints."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import nn

from unsup_fg.networks import build
from unsup_fg.official import architecture_of, from_official
from unsup_fg.settings import Architecture, NetworkName
from unsup_fg.weights import WEIGHTS
from vos_shared.checkpoints import safetensors_io
from vos_shared.errors import BadWeights


@dataclass(frozen=True)
class Snapshot(safetensors_io.Described):
    """A network with its weights.

    Attributes:
        network: in evaluation mode.
        architecture: which it is.
        metadata: what the file says of itself.
    """

    network: nn.Module
    architecture: Architecture
    metadata: Mapping[str, str]

    @property
    def threshold(self) -> float | None:
        """Soft mask from which on a pixel is foreground, where the weights ask for one.

        Raises:
            BadWeights: it makes no sense.
        """
        text = self.metadata.get("threshold")
        if text is None:
            return None
        try:
            value = float(text)
        except ValueError:
            value = 0.0
        if not 0 < value <= 1:
            raise BadWeights(f"weights ask for a threshold of {text}; give --threshold above 0, up to 1")
        return value


def save_weights(
    path: Path, network: nn.Module, architecture: Architecture, notes: Mapping[str, str], *, half: bool = False
) -> None:
    """Write a network.

    Args:
        path: of the file.
        network: its state goes in.
        architecture: goes into the metadata.
        notes: more metadata, for example data and steps.
        half: store floating-point values with 16 bits.
    """
    metadata = {**notes, "method": "unsup-fg", "architecture": json.dumps(asdict(architecture))}
    safetensors_io.save(path, network.state_dict(), metadata, half=half)


def load_weights(source: str | Path, expected: Collection[NetworkName] | None = None) -> Snapshot:
    """Read weights of any kind.

    Args:
        source: a safetensors file of ours, the prefix of an official TensorFlow checkpoint, or a name in `WEIGHTS`.
        expected: networks that will do; by default all.

    Raises:
        BadWeights: missing, damaged, or of another network.
        MissingExtra: an official checkpoint, and TensorFlow is not installed.
    """
    path = WEIGHTS.locate(source)
    snapshot = _read_ours(path) if path.suffix == ".safetensors" else _read_official(path)
    network = snapshot.architecture.network
    if expected is not None and network not in expected:
        raise BadWeights(f"{path}: these are weights of {network}; give weights of {' or '.join(expected)}")
    return snapshot


def _read_ours(path: Path) -> Snapshot:
    state, metadata = safetensors_io.load(path)
    if metadata.get("method") != "unsup-fg":
        raise BadWeights(
            f"{path}: these are not weights of unsup-fg; import official ones with unsup-fg import-weights"
        )
    with safetensors_io.other_versions_refused(path, "unsup-fg"):
        architecture = Architecture(**json.loads(metadata["architecture"]))
        network = build(architecture)
        network.load_state_dict(state)
    return Snapshot(network.eval(), architecture, metadata)


def _read_official(path: Path) -> Snapshot:
    from vos_shared.checkpoints.tensorflow import read_checkpoint

    arrays = read_checkpoint(path)
    architecture = architecture_of(arrays)
    if architecture is None:
        raise BadWeights(f"{path}: a TensorFlow checkpoint, but of no network of unsup-fg")
    network = build(architecture)
    try:
        network.load_state_dict(from_official(arrays, network, architecture.network))
    except BadWeights as reason:
        raise BadWeights(f"{path}: {reason}") from reason
    return Snapshot(
        network.eval(), architecture, {"description": f"official checkpoint {path.name}, {architecture.network}"}
    )
