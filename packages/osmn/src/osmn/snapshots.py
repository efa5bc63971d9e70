"""Our weights files: safetensors that know their architecture and how their input was normalised."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch

from osmn.networks import OSMN, Architecture
from vos_shared.checkpoints import ours
from vos_shared.errors import BadWeights


def save_snapshot(path: Path, model: OSMN, scale_value: float, notes: Mapping[str, str], *, half: bool = False) -> None:
    """Write a model.

    Args:
        path: of the file.
        model: its state and architecture go in.
        scale_value: factor of the normalised pixels it was trained with.
        notes: more metadata, for example data and steps.
        half: store floating-point values with 16 bits.
    """
    state = {
        key: value.half() if half and value.is_floating_point() else value for key, value in model.state_dict().items()
    }
    metadata = {
        "network": "osmn",
        "architecture": json.dumps(asdict(model.architecture)),
        "scale_value": repr(scale_value),
        **notes,
    }
    ours.save(path, state, metadata)


def load_snapshot(path: Path) -> tuple[OSMN, float, dict[str, str]]:
    """Read a model; returns it with its scale value and the metadata.

    Raises:
        BadWeights: damaged, or made for another network.
    """
    state, metadata = ours.load(path)
    if metadata.get("network") != "osmn":
        found = metadata.get("network", "an unknown network")
        raise BadWeights(
            f"{path}: these are weights of {found}, not of osmn; import official ones with osmn import-weights"
        )
    model = OSMN(Architecture(**json.loads(metadata["architecture"])))
    model.load_state_dict({key: value.float() if value.is_floating_point() else value for key, value in state.items()})
    return model.eval(), float(metadata["scale_value"]), metadata


def parameter_count(model: torch.nn.Module) -> int:
    """Number of learned values."""
    return sum(parameter.numel() for parameter in model.parameters())
