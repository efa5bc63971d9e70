"""Start values from ImageNet: slim's VGG16 as in the paper, torchvision's VGG16, and Keras' MobileNet for lite.

Official models read BGR minus a mean, times a scale. A donor that was trained on another normalisation differs by an
affine map of the input, which is folded into the first layer; only the zero padding at the border is not exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from osmn.guides import MEAN_BGR
from osmn.networks import OSMN, Architecture, initialise
from osmn.official import Arrays, from_official, is_depthwise, names_of, variant_of
from osmn.weights import WEIGHTS
from vos_shared.checkpoints.npz import fitting, read_npz
from vos_shared.errors import BadWeights, UserError
from vos_shared.layers.imagenet import IMAGE_MEAN, IMAGE_STD
from vos_shared.layers.tensorflow import kernel_from_tensorflow

Array = npt.NDArray[Any]

VGG_CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
"""Indices of the thirteen convolutions in torchvision's ``features``."""


IMAGENET = "imagenet"
"""Start from torchvision's VGG16, downloaded to the hub cache."""
RANDOM = "random"
"""Start from the initialiser alone."""


def starting_model(architecture: Architecture, start: str, scale_value: float) -> OSMN:
    """Build a network with start values for training.

    Args:
        architecture: of the network.
        start: ``imagenet``, ``random``, or a file: slim's ``vgg_16.ckpt``, Keras' MobileNet as npz (lite), or an
            official checkpoint of the whole network, also by name.
        scale_value: factor of the normalised pixels that the network will see.

    Raises:
        BadWeights: the file does not fit the network.
        MissingExtra: a TensorFlow checkpoint, and TensorFlow is not installed.
    """
    model = initialise(OSMN(architecture))
    if start != RANDOM:
        with fitting(start):
            model.load_state_dict(_donated(start, model, scale_value), strict=False)
    return model


def _donated(start: str, model: OSMN, scale_value: float) -> dict[str, Tensor]:
    """The start values that the donor provides; the others stay as initialised."""
    if start == IMAGENET:
        return _imagenet(model, scale_value)
    if start.endswith(".npz"):
        return from_keras_mobilenet(read_npz(start), model, scale_value)
    from vos_shared.checkpoints.tensorflow import read_checkpoint

    arrays = read_checkpoint(WEIGHTS.locate(start))
    try:
        return from_slim_vgg16(arrays, model) if variant_of(arrays) is None else from_official(arrays, model)
    except BadWeights as reason:
        raise BadWeights(f"{start}: {reason}") from reason


def _imagenet(model: OSMN, scale_value: float) -> dict[str, Tensor]:
    if model.architecture.base_model == "lite":
        raise UserError("osmn: torchvision has no MobileNet-v1 for lite; give --weights FILE.npz with Keras' weights")
    from torchvision.models import VGG16_Weights

    donor = VGG16_Weights.IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True)
    return from_torchvision_vgg16(donor, model, scale_value)


def from_slim_vgg16(arrays: Arrays, model: OSMN) -> dict[str, Tensor]:
    """Values of ``vgg_16.ckpt`` for both trunks; tensors of another shape are left out.

    Args:
        arrays: variables ``vgg_16/conv1/conv1_1/weights`` and so on.
        model: gives the wanted names and shapes.

    Returns:
        A partial state dict for `OSMN.load_state_dict(strict=False)`: 30 + 26 tensors for the default model.

    Raises:
        BadWeights: nothing fits.
    """
    state = model.state_dict()
    loaded: dict[str, Tensor] = {}
    for key, name in names_of(model).items():
        donor = "vgg_16/" + name.split("/", 2)[2]
        if not key.startswith("modulator_sp.") and donor in arrays:
            value = kernel_from_tensorflow(arrays[donor], depthwise=is_depthwise(name))
            if value.shape == tuple(state[key].shape):
                loaded[key] = torch.from_numpy(np.array(value, np.float32))
    if not loaded:
        raise BadWeights(f"no variable of a slim VGG16 fits variant {model.architecture.base_model}")
    return loaded


def from_torchvision_vgg16(donor: Mapping[str, Tensor], model: OSMN, scale_value: float = 1.0) -> dict[str, Tensor]:
    """Values of ``torchvision.models.vgg16`` for both trunks, fc6 and fc7.

    Raises:
        BadWeights: it is not a VGG16.
    """
    names = [
        f"conv{stage}.conv{stage}_{n}" for stage, count in enumerate((2, 2, 3, 3, 3), 1) for n in range(1, count + 1)
    ]
    try:
        layers = {name: (donor[f"features.{i}.weight"], donor[f"features.{i}.bias"])
                  for name, i in zip(names, VGG_CONVOLUTIONS, strict=True)}  # fmt: skip
        full = {
            "fc6": (donor["classifier.0.weight"].reshape(4096, 512, 7, 7), donor["classifier.0.bias"]),
            "fc7": (donor["classifier.3.weight"].reshape(4096, 4096, 1, 1), donor["classifier.3.bias"]),
        }
    except KeyError as error:
        raise BadWeights(f"not torchvision's VGG16 without batch norm: {error.args[0]} is missing") from error
    weight, bias = layers[names[0]]
    mean, std = (255 * torch.tensor(values, dtype=weight.dtype) for values in (IMAGE_MEAN, IMAGE_STD))
    shifted = _to_bgr_input(weight, 1 / std, -mean / std, scale_value)
    layers[names[0]] = (shifted[0], bias + shifted[1])
    state = model.state_dict()
    loaded: dict[str, Tensor] = {}
    for scope, parts in (("modulator", {**layers, **full}), ("seg", layers)):
        for name, (kernel, offset) in parts.items():
            if state.get(f"{scope}.{name}.weight", torch.empty(0)).shape == kernel.shape:
                loaded[f"{scope}.{name}.weight"], loaded[f"{scope}.{name}.bias"] = kernel.clone(), offset.clone()
    return loaded


def from_keras_mobilenet(arrays: Arrays, model: OSMN, scale_value: float) -> dict[str, Tensor]:
    """Keras' MobileNet-v1 1.0 (input RGB / 127.5 - 1) for both trunks of lite; other layers stay as initialised.

    Args:
        arrays: ``conv1|kernel``, ``conv_dw_1_bn|gamma`` and so on, kernels HWIO.
        model: a lite model.
        scale_value: factor of the normalised pixels that the model will see.

    Raises:
        BadWeights: the first convolution is missing, or the model is not lite.
    """
    if model.architecture.base_model != "lite" or "conv1|kernel" not in arrays:
        raise BadWeights("MobileNet weights are for variant lite only, and must hold conv1|kernel")
    layers = {"conv1": "stem"}
    for number in range(1, 14):
        layers[f"conv_dw_{number}"] = f"blocks.{number - 1}.depthwise"
        layers[f"conv_pw_{number}"] = f"blocks.{number - 1}.pointwise"
    loaded: dict[str, Tensor] = {}
    for donor, ours in layers.items():
        kernel = arrays.get(f"{donor}|depthwise_kernel", arrays.get(f"{donor}|kernel"))
        if kernel is None:
            continue
        ours_kernel = kernel_from_tensorflow(kernel, depthwise=ours.endswith("depthwise"))
        tensors = {"conv.weight": torch.from_numpy(np.array(ours_kernel, np.float32))}
        tensors |= {
            f"norm.{name}": torch.from_numpy(np.array(_of_mobilenet(arrays, f"{donor}_bn|{leaf}"), np.float32))
            for leaf, name in (("gamma", "weight"), ("beta", "bias"), ("moving_mean", "running_mean"),
                               ("moving_variance", "running_var"))
        }  # fmt: skip
        if donor == "conv1":
            ones = torch.ones(3)
            tensors["conv.weight"], shift = _to_bgr_input(tensors["conv.weight"], ones / 127.5, -ones, scale_value)
            tensors["norm.running_mean"] -= shift
        for scope in ("modulator", "seg"):
            loaded |= {f"{scope}.{ours}.{name}": value.clone() for name, value in tensors.items()}
    return loaded


def _of_mobilenet(arrays: Arrays, name: str) -> Array:
    if name not in arrays:
        raise BadWeights(f"not Keras' MobileNet: {name} is missing")
    return arrays[name]


def _to_bgr_input(weight: Tensor, factor: Tensor, offset: Tensor, scale_value: float) -> tuple[Tensor, Tensor]:
    """Adapt a first layer trained on factor * rgb + offset to input scale_value * (bgr - mean); kernel and added bias.

    Args:
        weight: [C, 3, k, k] over RGB.
        factor: [3], RGB.
        offset: [3], RGB.
        scale_value: of the new input.
    """
    mean_rgb = torch.tensor(MEAN_BGR[::-1], dtype=weight.dtype)
    added = (weight * (factor * mean_rgb + offset)[None, :, None, None]).sum((1, 2, 3))
    return (weight * (factor / scale_value)[None, :, None, None]).flip(1).contiguous(), added
