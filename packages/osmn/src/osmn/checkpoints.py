"""Official variable names and ours: TensorFlow checkpoints in both directions, Keras MobileNet, torchvision VGG16."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from osmn.networks import OSMN, Architecture
from osmn.networks.layers import bilinear_kernel
from osmn.networks.model import VARIANTS
from vos_shared.errors import BadWeights

Arrays = Mapping[str, npt.NDArray[Any]]

SCOPE = "osmn"
_NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


def official_name(key: str, *, lite: bool = False) -> str:
    """The checkpoint's name of one of our state-dict entries.

    ``seg.conv3.conv3_1.weight`` -> ``osmn/seg/conv3/conv3_1/weights``; batch norms lie under ``BatchNorm``, depthwise
    kernels are called ``depthwise_weights``; the lite heads and side outputs lie directly in the scope.
    """
    *path, leaf = key.split(".")
    depthwise = leaf == "weight" and path[-1] == "conv" and path[-2].endswith("_depthwise")
    if path[-1] == "norm":
        path[-1:] = ["BatchNorm"]
        leaf = {ours: theirs for theirs, ours in _NORM.items()}[leaf]
    else:
        leaf = "depthwise_weights" if depthwise else {"weight": "weights", "bias": "biases"}[leaf]
        path = path[:-1] if path[-1] == "conv" else path
    return "/".join([SCOPE, *_scopes(path, lite=lite), leaf])


def _scopes(path: list[str], *, lite: bool) -> list[str]:
    if path[:2] == ["modulator", "heads"]:
        return [f"Conv2d_out_{int(path[2]) + 1}"]
    if path == ["modulator", "logits"]:
        return ["modulator", "Logits", "Conv2d_1c_1x1"]
    if lite and path[0] == "seg" and not path[1].startswith("Conv2d"):
        return path[1:]
    return ["upscore-fuse" if part == "upscore_fuse" else part for part in path if part != "head"]


def to_torch_layout(name: str, value: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """HWIO to OIHW, depthwise HWC1 to C1HW; vectors stay."""
    if name.endswith("depthwise_weights"):
        return value.transpose(2, 3, 0, 1)
    return value.transpose(3, 2, 0, 1) if value.ndim == 4 else value


def _to_official(name: str, value: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if name.endswith("depthwise_weights"):
        return value.transpose(2, 3, 0, 1)
    return value.transpose(2, 3, 1, 0) if value.ndim == 4 else value


def names_of(model: OSMN) -> dict[str, str]:
    """Our state-dict keys -> official names, in the model's order; counters of batches have none."""
    lite = model.architecture.base_model == "lite"
    return {key: official_name(key, lite=lite) for key in model.state_dict() if not key.endswith("num_batches_tracked")}


def from_official(arrays: Arrays, model: OSMN) -> dict[str, Tensor]:
    """Official variables -> a complete state dict of the model.

    Args:
        arrays: variables by name; optimiser slots, ``global_step`` and the frozen bilinear kernels may be among them.
        model: gives the wanted names and shapes.

    Raises:
        BadWeights: a variable is missing or has another shape; the message names the variant that would fit.
    """
    state = model.state_dict()
    for key, name in names_of(model).items():
        if name not in arrays:
            raise BadWeights(f"the checkpoint has no variable {name}; {_guess(arrays)}")
        value = to_torch_layout(name, arrays[name])
        if value.shape != tuple(state[key].shape):
            wanted = tuple(_to_official(name, np.empty(state[key].shape, np.bool_)).shape)
            raise BadWeights(f"variable {name} is {tuple(arrays[name].shape)}, not {wanted}; {_guess(arrays)}")
        state[key] = torch.from_numpy(np.array(value, np.float32))
    return state


def to_official(model: OSMN) -> dict[str, npt.NDArray[Any]]:
    """The model as official variables, the frozen bilinear kernels and ``global_step`` included."""
    state = model.state_dict()
    arrays: dict[str, npt.NDArray[Any]] = {
        name: np.ascontiguousarray(_to_official(name, state[key].cpu().float().numpy()))
        for key, name in names_of(model).items()
    }
    arrays.update(_bilinear_variables(model))
    arrays["global_step"] = np.array(0, np.int32)
    return arrays


def _bilinear_variables(model: OSMN) -> dict[str, npt.NDArray[Any]]:
    base = model.architecture.base_model
    if base == "lite":
        return {}
    if base == "osvos":
        kernels = {f"score-multi{level + 1}-up": (2 ** (level + 1), 16) for level in range(1, 5)}
    else:
        kernels = {"score-up": (16, 1)}
    return {
        f"{SCOPE}/seg/{name}/weights": (
            bilinear_kernel(size).numpy()[:, :, None, None] * np.eye(channels, dtype=np.float32)
        )
        for name, (size, channels) in kernels.items()
    }


def variant_of(arrays: Arrays) -> str | None:
    """Which variant of the network a set of official variables belongs to, judged by names and shapes alone."""
    names = set(arrays)
    if f"{SCOPE}/seg/fc8_1/weights" in names:
        return "masktrack"
    if f"{SCOPE}/seg/fc8_voc12_1/weights" in names:
        return "deeplab"
    if f"{SCOPE}/Conv2d_out_1/weights" in names:
        return "lite"
    if f"{SCOPE}/seg/upscore-fuse/weights" not in names:
        return None
    if not any(name.startswith(f"{SCOPE}/modulator/") for name in names):
        return "no_visual"
    if not any(name.startswith(f"{SCOPE}/modulator_sp/") for name in names):
        return "no_spatial"
    return "mod_early_conv" if f"{SCOPE}/modulator_sp/conv1/weights" in names else "osvos"


def architecture_of(arrays: Arrays) -> Architecture | None:
    """The network that a set of official variables fills, or None if it is none of ours."""
    variant = variant_of(arrays)
    if variant is None:
        return None
    architecture = VARIANTS[variant]
    if architecture.base_model == "osvos" and f"{SCOPE}/modulator_sp/conv1/weights" in arrays:
        architecture = replace(architecture, mod_early_conv=True)  # Also without a visual modulator.
    heads = arrays.get(f"{SCOPE}/modulator/Logits/Conv2d_1c_1x1/weights")  # Ours may be narrower than the official.
    return architecture if heads is None else replace(architecture, head_width=heads.shape[-1])


def _guess(arrays: Arrays) -> str:
    variant = variant_of(arrays)
    known = ", ".join(VARIANTS)
    return f"it is a checkpoint of variant {variant}" if variant else f"it is no OSMN checkpoint (variants: {known})"
