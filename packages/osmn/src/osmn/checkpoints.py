"""Weights: our safetensors files, which record architecture and input scaling, and official checkpoints."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from osmn.networks import OSMN, VARIANTS, Architecture
from osmn.official import architecture_of, from_official, variant_of
from osmn.weights import WEIGHTS
from vos_shared.checkpoints import safetensors_io
from vos_shared.errors import BadWeights

LITE_SCALE = 0.00787
"""Factor of the normalised pixels for MobileNet trunks, from a comment of the official code; VGG trunks have 1."""

_RENAMED: Final = (
    (re.compile(r"\.Conv2d_0\."), ".stem."),
    (re.compile(r"\.Conv2d_(\d+)_(depthwise|pointwise)\."), lambda match: f".blocks.{int(match[1]) - 1}.{match[2]}."),
    (re.compile(r"^modulator_sp\.(conv\d+)\."), r"modulator_sp.branches.\1."),
    (
        re.compile(r"^seg\.head\.(fc[678])(?:_voc12)?_(\d)\."),
        lambda match: f"seg.branches.{int(match[2]) - 1}.{match[1]}.",
    ),
)


@dataclass(frozen=True)
class Snapshot(safetensors_io.Described):
    """A network with its weights.

    Attributes:
        model: in evaluation mode.
        scale_value: factor of the normalised pixels it was trained with.
        metadata: of the file.
    """

    model: OSMN
    scale_value: float
    metadata: Mapping[str, str]


def save_weights(path: Path, model: OSMN, scale_value: float, notes: Mapping[str, str], *, half: bool = False) -> None:
    """Write a model.

    Args:
        path: of the file.
        model: its state and architecture go in.
        scale_value: factor of the normalised pixels it was trained with.
        notes: more metadata, for example data and steps.
        half: store floating-point values with 16 bits.
    """
    metadata = {
        **notes,
        "network": "osmn",
        "architecture": json.dumps(asdict(model.architecture)),
        "scale_value": repr(scale_value),
    }
    safetensors_io.save(path, model.state_dict(), metadata, half=half)


def read_weights(path: Path) -> Snapshot:
    """Read one of our files.

    Raises:
        BadWeights: damaged, or made for another network.
    """
    state, metadata = safetensors_io.load_network(path, "osmn")
    with safetensors_io.other_versions_refused(path, "osmn"):
        model = OSMN.unfilled(Architecture(**json.loads(metadata["architecture"])))
        model.load_state_dict({current_name(key): value for key, value in state.items()})
        scale_value = float(metadata["scale_value"])
    return Snapshot(model.eval(), scale_value, metadata)


def current_name(key: str) -> str:
    """Current name of a state-dict entry; files of the first version use some official names."""
    for pattern, name in _RENAMED:
        key = pattern.sub(name, key)
    return key


def load_weights(source: str | Path | None) -> Snapshot:
    """Read weights of any kind.

    Args:
        source: a file of ours, the prefix of an official TensorFlow checkpoint, the name of a published one; None for
            the weights that come with the package.

    Raises:
        BadWeights: missing, damaged or of another network.
        MissingExtra: an official checkpoint, and TensorFlow is not installed.
    """
    path = WEIGHTS.locate(source)
    return read_weights(path) if path.suffix == ".safetensors" else _load_official(path)


def _load_official(path: Path) -> Snapshot:
    from vos_shared.checkpoints.tensorflow import read_checkpoint

    arrays = read_checkpoint(path)
    architecture = architecture_of(arrays)
    if architecture is None:
        raise BadWeights(f"{path}: a TensorFlow checkpoint, but not of OSMN; its variants are {', '.join(VARIANTS)}")
    model = OSMN.unfilled(architecture)
    try:
        model.load_state_dict(from_official(arrays, model))
    except BadWeights as reason:
        raise BadWeights(f"{path}: {reason}") from reason
    variant = variant_of(arrays)
    scale_value = LITE_SCALE if variant == "lite" else 1.0
    return Snapshot(model.eval(), scale_value, {"description": f"official checkpoint {path.name}, variant {variant}"})
