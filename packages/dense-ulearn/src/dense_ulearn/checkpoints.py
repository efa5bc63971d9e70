"""Weights in and out: our safetensors files and the published snapshots of the authors, strictly checked."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dense_ulearn.networks import DenseNetwork
from dense_ulearn.weights import UNTRAINED, WEIGHTS
from vos_shared.checkpoints import safetensors_io
from vos_shared.checkpoints.checking import require_same_shapes, require_weights
from vos_shared.checkpoints.torch_pickle import load_torch, save_torch
from vos_shared.errors import BadWeights

StateDict = dict[str, Tensor]
OURS = ".safetensors"


@dataclass(frozen=True)
class Weights:
    """Weights of a `DenseNetwork` and their description.

    Attributes:
        state: all 129 entries, float32 (counters int64), on the CPU.
        description: what the weights are.
        trained: False where the network is as it was initialised.
        metadata: other metadata of the file.
    """

    state: StateDict
    description: str
    trained: bool
    metadata: Mapping[str, str]

    def network(self) -> DenseNetwork:
        """The network with these weights, in evaluation mode."""
        network = DenseNetwork()
        network.load_state_dict(self.state)
        return network.eval()


def load_weights(weights: str | Path | None = None) -> Weights:
    """Load weights by file or name.

    Args:
        weights: a file of ours or an official snapshot; the name of a published snapshot; ``untrained``; or None for
            the weights that come with the package.

    Raises:
        BadWeights: no such file, damaged, unsafe, or of another network.
    """
    return untrained() if str(weights) == UNTRAINED else read_weights(WEIGHTS.locate(weights))


def untrained(seed: int = 0) -> Weights:
    """The network as initialised: random, but the same on every machine."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = DenseNetwork()
    return Weights(network.state_dict(), f"untrained, seed {seed}", False, {})


def read_weights(path: Path) -> Weights:
    """Read a file of ours (``.safetensors``) or an official snapshot (anything else).

    Raises:
        BadWeights: missing, damaged, unsafe, or of another network.
    """
    if path.suffix != OURS:
        return read_official(path)
    state, metadata = safetensors_io.load(path)
    trained = metadata.get("trained", "true") == "true"
    return Weights(_checked(state, path), metadata.get("description", path.stem), trained, metadata)


def save_weights(path: Path, weights: Weights, *, half: bool = False) -> None:
    """Write weights as safetensors; `half` stores them with 16 bits, batch norm statistics included.

    Raises:
        BadWeights: too large for half precision.
    """
    trained = "true" if weights.trained else "false"
    facts = {**weights.metadata, "description": weights.description, "trained": trained}
    safetensors_io.save(path, weights.state, facts, half=half)


def read_official(path: Path) -> Weights:
    """Read a snapshot of the official code: ``{"model", "opt", "score", "epoch"}``; its optimiser state is left out.

    Raises:
        BadWeights: missing, damaged, with code in it, or of another network.
    """
    content = load_torch(path)
    if not isinstance(content, Mapping) or not isinstance(content.get("model"), Mapping):
        raise BadWeights(
            f"weights {path} are not a dense-ulearn snapshot, which is a dictionary with 'model', 'epoch', 'score'"
        )
    metadata = {name: str(number) for name, number in numbers_of(content).items()}
    words = f"official {path.stem}" + (f", epoch {metadata['epoch']}" if "epoch" in metadata else "")
    trained = content.get("trained") is not False  # Official snapshots lack the entry; they are trained.
    words = words if trained else f"untrained, {path.stem}"
    return Weights(_checked(content["model"], path), words, trained, metadata)


def numbers_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """``epoch`` (int) and ``score`` (float) of a snapshot or of metadata; entries that are not numbers are left out."""
    found: dict[str, Any] = {}
    for name, kind in (("epoch", int), ("score", float)):
        with suppress(KeyError, TypeError, ValueError, RuntimeError):  # Missing, or not a number.
            found[name] = kind(content[name])
    return found


def write_official(
    path: Path, state: Mapping[str, Tensor], *, epoch: int = 0, score: float = 0.0, trained: bool = True
) -> None:
    """Write a snapshot that the official code loads; its optimiser state is empty, as that code starts it afresh.

    Args:
        path: usually ``.pth``.
        state: weights of a `DenseNetwork`.
        epoch: the epoch that the weights come from.
        score: their validation score, (J + F) / 2 in 0..1.
        trained: False is written as another entry, for this package; the official code ignores it.
    """
    content = {"model": dict(state), "opt": {}, "score": np.float64(score), "epoch": epoch}
    if not trained:
        content["trained"] = False
    path.parent.mkdir(parents=True, exist_ok=True)
    save_torch(path, content)


def _checked(state: Mapping[str, Any], path: Path) -> StateDict:
    """State dict of a `DenseNetwork`, float32; refuses missing entries and wrong shapes."""
    with torch.device("meta"):
        expected = DenseNetwork().state_dict()
    found = require_weights({str(name).replace("module.", ""): value for name, value in state.items()}, path)
    require_same_shapes(found, expected, path)
    return {name: found[name].to(value.dtype) for name, value in expected.items()}
