"""Reading and writing of weights: our safetensors files, official checkpoints, and the backbone for torchvision."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from amd_objectness.networks import AMD
from amd_objectness.settings import Architecture
from amd_objectness.weights import UNTRAINED, WEIGHTS
from vos_shared.checkpoints import safetensors_io
from vos_shared.checkpoints.checking import require_same_shapes, require_weights
from vos_shared.checkpoints.torch_pickle import load_torch, save_torch
from vos_shared.errors import BadWeights

StateDict = dict[str, Tensor]
OURS: Final = ".safetensors"
NETWORK: Final = "amd-objectness"
BACKBONE: Final = "backbone2."
_COUNTER: Final = "num_batches_tracked"
_PARTS: Final = (BACKBONE, "decode_head.flownet.", "decode_head2.")
_META: Final = {"mmseg_version": "0.6.0", "mmcv_version": "1.1.2", "CLASSES": ("background", "foreground")}
"""Entries of ``meta`` that the released code writes and reads."""
_PALETTE: Final = [[0, 0, 0], [128, 0, 0]]


@dataclass(frozen=True)
class Weights:
    """Weights of an `AMD` with a description.

    Attributes:
        state: all entries, float32 (counters int64), on the CPU.
        architecture: of the network.
        description: origin of the weights, in words.
        trained: False if the networks are as they were initialised.
        metadata: other entries of the file's metadata.
    """

    state: StateDict
    architecture: Architecture
    description: str
    trained: bool = True
    metadata: Mapping[str, str] = field(default_factory=dict)

    def network(self) -> AMD:
        """Both networks with these weights, in evaluation mode."""
        model = AMD(self.architecture)
        model.load_state_dict(self.state)
        return model.eval()


@dataclass(frozen=True)
class KeyReport:
    """What became of each key of an official checkpoint.

    Attributes:
        read: keys that were read, with the shapes of their tensors.
        unknown: keys of the file that the network does not have; they are left out.
        counters: ``num_batches_tracked`` entries that the file lacks; nothing depends on them, they are set to zero.
    """

    read: Mapping[str, tuple[int, ...]]
    unknown: tuple[str, ...]
    counters: tuple[str, ...]

    def summary(self) -> str:
        """The report as one line."""
        parts = [f"{len(self.read)} keys read"]
        if self.unknown:
            parts.append(f"{len(self.unknown)} unknown keys left out ({', '.join(self.unknown)})")
        if self.counters:
            parts.append(f"{len(self.counters)} batch counters missing, set to 0")
        return "; ".join(parts)

    def lines(self) -> list[str]:
        """The report with one line for each key."""
        read = [f"read      {name} {list(shape)}" for name, shape in self.read.items()]
        left = [f"left out  {name}" for name in self.unknown]
        return [*read, *left, *(f"set to 0  {name}" for name in self.counters)]


def load_weights(weights: str | Path | None = None) -> Weights:
    """Load the weights that a user named.

    Args:
        weights: a file of ours or an official checkpoint; the name of published weights; ``untrained``; or None for
            the weights that come with the package.

    Raises:
        BadWeights: the file does not exist, is damaged or unsafe, or holds another network.
    """
    return untrained() if str(weights) == UNTRAINED else read_weights(WEIGHTS.locate(weights))


def untrained(architecture: Architecture | None = None, seed: int = 0) -> Weights:
    """The networks with their random start values, which depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AMD(architecture)
    return Weights(model.state_dict(), model.architecture, f"untrained, seed {seed}", trained=False)


def read_weights(path: Path) -> Weights:
    """Read a file of ours (``.safetensors``) or an official checkpoint (anything else).

    Raises:
        BadWeights: the file is missing, damaged or unsafe, or holds another network.
    """
    if path.suffix != OURS:
        return read_official(path)[0]
    state, metadata = safetensors_io.load_network(path, NETWORK)
    with safetensors_io.other_versions_refused(path, NETWORK):
        architecture = stored_architecture(metadata)
    expected = _expected(architecture)
    require_same_shapes(state, expected, path)
    typed = {name: state[name].to(value.dtype) for name, value in expected.items()}
    trained = metadata.get("trained", "true") == "true"
    return Weights(typed, architecture, metadata.get("description", path.stem), trained, metadata)


def stored_architecture(metadata: Mapping[str, str]) -> Architecture:
    """The architecture that a file of ours names.

    Raises:
        KeyError, TypeError or ValueError: the entry is missing, or another version wrote it.
    """
    fields = json.loads(metadata["architecture"])
    return Architecture(**{**fields, "motion_size": tuple(fields["motion_size"])})


def save_weights(path: Path, weights: Weights, *, half: bool = False) -> None:
    """Write weights as safetensors, on request in half precision (including batch norm statistics).

    Raises:
        BadWeights: too large for half precision.
    """
    facts = {
        **weights.metadata,
        "network": NETWORK,
        "architecture": json.dumps(asdict(weights.architecture)),
        "description": weights.description,
        "trained": "true" if weights.trained else "false",
    }
    safetensors_io.save(path, weights.state, facts, half=half)


def read_official(path: Path) -> tuple[Weights, KeyReport]:
    """Read a checkpoint of the released code: ``{meta, state_dict, optimizer}``, or the state alone.

    A prefix ``module.`` of all names is dropped; keys that the network does not have and the optimiser's state are left
    out. Every parameter and every batch norm statistic must be there.

    Raises:
        BadWeights: the file is missing or damaged, contains code, or holds another network.
    """
    content = load_torch(path)
    state = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping):
        raise BadWeights(f"weights {path} are not a checkpoint of {NETWORK}, which is a dictionary with 'state_dict'")
    found = {str(name).removeprefix("module."): value for name, value in state.items()}
    if not all(any(name.startswith(part) for name in found) for part in _PARTS):
        raise BadWeights(
            f"weights {path} are of another network: names of {NETWORK} begin with {', '.join(_PARTS)}, "
            f"this file has {', '.join(list(found)[:2]) or 'none'}"
        )
    bottleneck = f"{BACKBONE}layer1.0.conv3.weight" in found
    architecture = Architecture("resnet50" if bottleneck else "resnet18")
    taken, report = _taken(found, _expected(architecture), path)
    meta = content.get("meta")
    steps = meta.get("iter") if isinstance(meta, Mapping) else None
    metadata = {"steps": str(steps)} if isinstance(steps, int) else {}
    return Weights(taken, architecture, f"official {path.stem}", metadata=metadata), report


def write_official(path: Path, weights: Weights) -> None:
    """Write a checkpoint that the released code loads: ``meta`` and ``state_dict``, without optimiser state.

    Raises:
        BadWeights: the released code would compute something else with these weights.
    """
    if weights.architecture.standardise:
        raise BadWeights(f"{path}: the released code cannot standardise features; write a {OURS} file instead")
    steps = weights.metadata.get("steps", "0")
    meta = {**_META, "PALETTE": _PALETTE, "iter": int(steps) if steps.isdecimal() else 0, "epoch": 0}
    _save_torch(path, {"meta": meta, "state_dict": dict(weights.state)})


def backbone_state(weights: Weights) -> StateDict:
    """The backbone under torchvision's names, for its ``resnet50`` or ``resnet18`` without ``fc``."""
    return {name.removeprefix(BACKBONE): value for name, value in weights.state.items() if name.startswith(BACKBONE)}


def save_backbone(path: Path, weights: Weights) -> None:
    """Write `backbone_state` as ``.safetensors``, or with ``torch.save`` under any other suffix."""
    if path.suffix == OURS:
        facts = {"network": weights.architecture.backbone, "description": weights.description}
        safetensors_io.save(path, backbone_state(weights), facts)
    else:
        _save_torch(path, backbone_state(weights))


def _save_torch(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_torch(path, content)


def _expected(architecture: Architecture) -> StateDict:
    with torch.device("meta"):
        return AMD(architecture).state_dict()


def _taken(found: Mapping[str, Any], expected: StateDict, path: Path) -> tuple[StateDict, KeyReport]:
    """The network's entries of a file, and the report about all keys."""
    counters = tuple(name for name in expected if name.endswith(_COUNTER) and name not in found)
    unknown = tuple(name for name in found if name not in expected)
    known = {name: value for name, value in found.items() if name in expected}
    state = require_weights({**known, **{name: torch.tensor(0) for name in counters}}, path)
    require_same_shapes(state, expected, path)
    typed = {name: state[name].to(value.dtype) for name, value in expected.items()}
    return typed, KeyReport({name: tuple(typed[name].shape) for name in known}, unknown, counters)
