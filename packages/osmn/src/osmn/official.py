"""TensorFlow checkpoints of the official code, read and written: variable names, layouts, variants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from osmn.networks import OSMN, Architecture
from osmn.networks.model import VARIANTS, BaseModel
from vos_shared.errors import BadWeights
from vos_shared.layers.tensorflow import kernel_from_tensorflow, kernel_to_tensorflow
from vos_shared.layers.upsampling import bilinear_kernel

Arrays = Mapping[str, npt.NDArray[Any]]

SCOPE = "osmn"
_NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


def official_name(key: str, base_model: BaseModel = "osvos") -> str:
    """Official variable name of one of our state-dict entries.

    ``seg.conv3.conv3_1.weight`` -> ``osmn/seg/conv3/conv3_1/weights``; batch norms lie under ``BatchNorm``, depthwise
    kernels are called ``depthwise_weights``; the lite heads and side outputs lie directly in the scope.
    """
    *path, leaf = key.split(".")
    depthwise = leaf == "weight" and path[-2:] == ["depthwise", "conv"]
    if path[-1] == "norm":
        path[-1:] = ["BatchNorm"]
        leaf = {ours: theirs for theirs, ours in _NORM.items()}[leaf]
    else:
        leaf = "depthwise_weights" if depthwise else {"weight": "weights", "bias": "biases"}[leaf]
        path = path[:-1] if path[-1] == "conv" else path
    return "/".join([SCOPE, *_scopes(path, base_model), leaf])


def _scopes(path: list[str], base_model: BaseModel) -> list[str]:
    network, *inside = path
    match inside:
        case ["heads", head]:
            return [f"Conv2d_out_{int(head) + 1}"]
        case ["logits"]:
            return ["modulator", "Logits", "Conv2d_1c_1x1"]
        case ["stem", *rest]:
            return [network, "Conv2d_0", *rest]
        case ["blocks", number, kind, *rest]:
            return [network, f"Conv2d_{int(number) + 1}_{kind}", *rest]
        case ["branches", number, "fc8"]:
            score = "fc8" if base_model == "masktrack" else "fc8_voc12"
            return [network, f"{score}_{int(number) + 1}"]
        case ["branches", number, ("fc6" | "fc7") as layer]:
            return [network, f"{layer}_{int(number) + 1}"]
        case ["branches", *rest]:
            return [network, *rest]
    if base_model == "lite" and network == "seg":
        return inside
    return [network, *("upscore-fuse" if part == "upscore_fuse" else part for part in inside)]


def is_depthwise(name: str) -> bool:
    """Whether an official variable is a depthwise kernel."""
    return name.endswith("depthwise_weights")


def names_of(model: OSMN) -> dict[str, str]:
    """Our state-dict keys -> official names, in the model's order, without batch counters, which have none."""
    base_model = model.architecture.base_model
    keys = (key for key in model.state_dict() if not key.endswith("num_batches_tracked"))
    return {key: official_name(key, base_model) for key in keys}


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
        value = kernel_from_tensorflow(arrays[name], depthwise=is_depthwise(name))
        if value.shape != tuple(state[key].shape):
            wanted = tuple(
                kernel_to_tensorflow(np.empty(state[key].shape, np.bool_), depthwise=is_depthwise(name)).shape
            )
            raise BadWeights(f"variable {name} is {tuple(arrays[name].shape)}, not {wanted}; {_guess(arrays)}")
        state[key] = torch.from_numpy(np.array(value, np.float32))
    return state


def to_official(model: OSMN) -> dict[str, npt.NDArray[Any]]:
    """The model as official variables, the frozen bilinear kernels and ``global_step`` included."""
    state = model.state_dict()
    arrays: dict[str, npt.NDArray[Any]] = {
        name: np.ascontiguousarray(kernel_to_tensorflow(state[key].cpu().float().numpy(), depthwise=is_depthwise(name)))
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
    """The architecture that a set of official variables belongs to; None if it is not an OSMN."""
    variant = variant_of(arrays)
    if variant is None:
        return None
    architecture = VARIANTS[variant]
    if architecture.base_model == "osvos" and f"{SCOPE}/modulator_sp/conv1/weights" in arrays:
        architecture = replace(architecture, mod_early_conv=True)  # Also without a visual modulator.
    heads = arrays.get(
        f"{SCOPE}/modulator/Logits/Conv2d_1c_1x1/weights"
    )  # Ours may be narrower than the official 2048.
    return architecture if heads is None else replace(architecture, head_width=heads.shape[-1])


def _guess(arrays: Arrays) -> str:
    variant = variant_of(arrays)
    known = ", ".join(VARIANTS)
    return (
        f"it is a checkpoint of variant {variant}" if variant else f"it is not an OSMN checkpoint (variants: {known})"
    )
