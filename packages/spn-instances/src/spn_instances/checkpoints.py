"""Reading and writing of weights: our safetensors files, and official ``.caffemodel`` files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from torch import nn

from spn_instances.networks import Architecture, Refinement, RefinementNet, ResNetF
from spn_instances.official import read_official
from vos_shared.checkpoints import safetensors_io
from vos_shared.errors import BadWeights

Network = TypeVar("Network", ResNetF, RefinementNet)

_NAMES = {ResNetF: "spn-instances foreground", RefinementNet: "spn-instances refinement"}


@dataclass(frozen=True)
class Snapshot(safetensors_io.Described, Generic[Network]):
    """A network with its weights.

    Attributes:
        model: in evaluation mode.
        metadata: of the file, by name.
    """

    model: Network
    metadata: Mapping[str, str]


def save_weights(
    path: Path, model: ResNetF | RefinementNet, notes: Mapping[str, str], *, half: bool = False
) -> None:  # fmt: skip
    """Write a model.

    Args:
        path: the file to write.
        model: its state and its architecture are stored.
        notes: further metadata, for example data and steps.
        half: store floating-point values in half precision.

    Raises:
        BadWeights: values are too large for half precision.
    """
    metadata = {**notes, "network": _NAMES[type(model)], "architecture": json.dumps(asdict(model.architecture))}
    safetensors_io.save(path, model.state_dict(), metadata, half=half)


def load_weights(path: str | Path, kind: type[Network]) -> Snapshot[Network]:
    """Read a file of ours (``.safetensors``) or a ``.caffemodel`` (anything else).

    Args:
        path: the file to read.
        kind: `ResNetF` or `RefinementNet`.

    Raises:
        BadWeights: the file is missing or damaged, or holds another network.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        return _read(path, kind)
    model = read_official(path)
    if not isinstance(model, kind):
        raise BadWeights(f"{path}: these are weights of {_NAMES[type(model)]}, not of {_NAMES[kind]}")
    return Snapshot(model, {"description": f"official {path.name}"})


def _read(path: Path, kind: type[Network]) -> Snapshot[Network]:
    state, metadata = safetensors_io.load_network(path, _NAMES[kind])
    with safetensors_io.other_versions_refused(path, "spn-instances"):
        description = json.loads(metadata["architecture"])
        model = _built(description, kind)
        model.load_state_dict(state)
    return Snapshot(model.eval(), metadata)


def _built(description: dict[str, Any], kind: type[Network]) -> Network:
    if issubclass(kind, RefinementNet):
        return kind(Refinement(**description))
    return kind(Architecture(**{**description, "blocks": tuple(description["blocks"])}))


def parameter_count(*models: nn.Module) -> int:
    """Number of parameters of some networks."""
    return sum(parameter.numel() for model in models for parameter in model.parameters())
