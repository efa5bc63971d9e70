"""Official variable names and ours: TensorFlow checkpoints in both directions (specification, sections 4 to 9)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from unsup_fg.networks.unets import DILATIONS
from unsup_fg.settings import Architecture, NetworkName
from vos_shared.errors import BadWeights
from vos_shared.layers.tensorflow import kernel_from_tensorflow, kernel_to_tensorflow

Arrays = Mapping[str, npt.NDArray[Any]]

_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
_LAYER = {"weight": "kernel", "bias": "bias"}


def official_name(key: str, network: NetworkName) -> str:
    """The checkpoint's name of one of our state-dict entries.

    ``down.0.1.norm.weight`` of BasicU-Net -> ``down0/conv1_2/batch_normalization/gamma``.
    """
    *path, leaf = key.split(".")
    if path == ["head"]:
        return f"conv2d/{_LAYER[leaf]}"
    if network == "lowres":
        return _lowres_name(path, leaf)
    if network == "evalseg":
        layer = _stream_layer(path)
        return f"{layer}/{'dense' if layer.startswith('fc') else 'conv2d'}/{_LAYER[leaf]}"
    return _dense_name(path, leaf) if network == "dense-unet" else _unet_name(path, leaf)


def _stream_layer(path: list[str]) -> str:
    """``data.conv1_1`` -> ``conv1_1_data``."""
    match path:
        case ["trunk", layer] | [layer]:
            return layer
        case [stream, layer]:
            return f"{layer}_{stream}"
    raise ValueError(path)


def _lowres_name(path: list[str], leaf: str) -> str:
    layer = _stream_layer(path)
    if leaf == "weight":
        return f"{layer}/{layer}"
    return "fc1/biases" if layer == "fc1" else f"{layer}/biases_{layer}"


def _unet_name(path: list[str], leaf: str) -> str:
    match path:
        case ["center", "dilate", index]:
            dilation = DILATIONS[int(index)]
            return f"center/dilate{dilation}/dilate{dilation}"
        case ["center", unit, part]:
            scope, layer = "center", f"conv6_{int(unit) + 1}"
        case ["down", level, unit, part]:
            scope, layer = f"down{level}", f"conv{int(level) + 1}_{int(unit) + 1}"
        case ["up", level, unit, part]:
            scope, layer = f"up{4 - int(level)}", f"up{int(level) + 1}_{int(unit) + 1}"
        case _:
            raise ValueError(path)
    inside = f"batch_normalization/{_NORM[leaf]}" if part == "norm" else f"{layer}/{_LAYER[leaf]}"
    return f"{scope}/{layer}/{inside}"


def _dense_name(path: list[str], leaf: str) -> str:
    *level, kind, part = path if "transition" in path else [*path[:-3], path[-2], path[-1]]
    match level:
        case ["down", number]:
            scope = f"down{number}"
        case ["up", number]:
            scope = f"up{4 - int(number)}"
        case _:
            scope = "center"
    norm = f"batch_normalization/{_NORM.get(leaf)}"
    if kind == "transition":
        return f"{scope}/{norm}" if part == "norm" else f"{scope}/transition/{_LAYER[leaf]}"
    inside = norm if part == "norm" else f"conv/{_LAYER[leaf]}"
    return f"{scope}/{scope}_{int(kind) + 1}/{inside}"


def names_of(network: nn.Module, name: NetworkName) -> dict[str, str]:
    """Our state-dict keys -> official names, in the network's order; counters of batches have none."""
    keys = (key for key in network.state_dict() if not key.endswith("num_batches_tracked"))
    return {key: official_name(key, name) for key in keys}


def from_official(arrays: Arrays, network: nn.Module, name: NetworkName) -> dict[str, Tensor]:
    """Official variables -> a complete state dict.

    Args:
        arrays: variables by name; the step counter and moving averages of losses may be among them.
        network: gives the wanted names and shapes.
        name: of the network.

    Raises:
        BadWeights: a variable is missing or has another shape.
    """
    state = network.state_dict()
    for key, official in names_of(network, name).items():
        if official not in arrays:
            raise BadWeights(f"the checkpoint has no variable {official}; it is {_described(arrays)}, not {name}")
        value = arrays[official]
        value = value.T if value.ndim == 2 else kernel_from_tensorflow(value)
        if value.shape != tuple(state[key].shape):
            raise BadWeights(f"variable {official} has shape {list(arrays[official].shape)}, which {name} cannot have")
        state[key] = torch.from_numpy(np.array(value, np.float32))
    return state


def to_official(network: nn.Module, name: NetworkName) -> dict[str, npt.NDArray[Any]]:
    """The network as official variables, in TensorFlow's layout."""
    state = network.state_dict()
    values = {official: state[key].cpu().float().clone().numpy() for key, official in names_of(network, name).items()}
    return {
        official: np.ascontiguousarray(value.T if value.ndim == 2 else kernel_to_tensorflow(value))
        for official, value in values.items()
    }


def architecture_of(arrays: Arrays) -> Architecture | None:
    """The network that a set of official variables fills, or None if it is none of these."""
    for name, (variable, axis, published) in _SIGNS.items():
        if variable in arrays and arrays[variable].ndim > 1:
            return Architecture(name, arrays[variable].shape[axis] / published)
    return None


_SIGNS: dict[NetworkName, tuple[str, int, int]] = {
    "lowres": ("conv1_2_hue/conv1_2_hue", 3, 256),
    "evalseg": ("conv1_2_seg/conv2d/kernel", 3, 256),
    "dilate-unet": ("center/dilate1/dilate1", 3, 512),
    "basic-unet": ("center/conv6_1/conv6_1/kernel", 3, 1024),
    "dense-unet": ("center/transition/kernel", 3, 512),
}
"""A variable that only this network has, and the axis and published number of its channels."""


def _described(arrays: Arrays) -> str:
    found = architecture_of(arrays)
    return f"one of {found.network}" if found else "of no network of unsup-fg"
