"""Conversion of official ``.caffemodel`` files and of torchvision's ResNet (specification, sections 2.4 and 7.6)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from spn_instances.networks import Architecture, Refinement, RefinementNet, ResNetF
from spn_instances.networks.head import DenseHead, dense_bilinear
from spn_instances.networks.trunks import Bottleneck, CaffeResNet
from vos_shared.checkpoints.caffe import Blob, Blobs, read_caffemodel, write_caffemodel
from vos_shared.errors import BadWeights, UserError
from vos_shared.layers.upsampling import bilinear_kernel

Layer = tuple[str, str, tuple[str, ...]]
"""Caffe's name and type of a layer, and our tensor for each of its blobs."""

_LETTERS = "abc"


def read_official(path: Path) -> ResNetF | RefinementNet:
    """Read the network in a ``.caffemodel``, with or without its upsamplers.

    Raises:
        BadWeights: the file is missing or damaged, or holds another network.
    """
    blobs = read_caffemodel(path)
    architecture = _architecture(blobs, path)
    with torch.device("meta"):
        model = ResNetF(architecture) if isinstance(architecture, Architecture) else RefinementNet(architecture)
    model = model.to_empty(device="cpu")
    _restore_constants(model)
    model.load_state_dict(from_caffe(blobs, model, path))
    return model.eval()


def _architecture(blobs: Blobs, path: Path) -> Architecture | Refinement:
    if "guide_conv2" in blobs:
        shapes = [blobs[name][0].shape for name in ("deconv0", "conv1_1", "rnn-conv1") if name in blobs]
        if len(shapes) == 3 and all(len(shape) == 4 for shape in shapes):
            return Refinement(*(shape[0] for shape in shapes))
    elif "feat08" in blobs and "conv1" in blobs:
        blocks = tuple(len({name.split("_")[0] for name in blobs if name.startswith(f"res{s}")}) for s in range(2, 6))
        if all(blocks) and len(blocks) == 4:
            bilinear = all(_is_bilinear(blobs[name][0], _UPSAMPLERS[name]) for name in _OF_RESNETF if name in blobs)
            width, hidden = (blobs[name][0].shape[0] for name in ("conv1", "feat08"))
            return Architecture("resnet", blocks, width, hidden, "bilinear" if bilinear else "dense")
    raise BadWeights(f"{path} is a caffemodel of another network, neither of ResNetF nor of the refinement network")


def _restore_constants(model: nn.Module) -> None:
    """Fill the constants that are not stored; the network was built on the meta device."""
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if name.startswith("kernel"):
                buffer.copy_(bilinear_kernel(buffer.shape[-1]))
            elif name in _OF_RESNETF:
                buffer.copy_(dense_bilinear(len(buffer), buffer.shape[-1]))
            elif name == "num_batches_tracked":
                buffer.zero_()


def layers_of(model: ResNetF | RefinementNet) -> list[Layer]:
    """All layers with blobs; upsamplers only if the network stores them (`DenseHead`).

    Raises:
        UserError: the trunk has no Caffe form.
    """
    if isinstance(model, RefinementNet):
        return [_convolution(name, key) for name, key in _refinement_names(model)]
    if not isinstance(model.trunk, CaffeResNet):
        raise UserError(f"spn-instances: trunk {model.architecture.trunk} has no Caffe form; write a .safetensors file")
    dense = _OF_RESNETF if isinstance(model.head, DenseHead) else ()
    return [
        *_resnet(model.trunk),
        *((name, "Deconvolution", (f"head.{name}",)) for name in dense),
        *(("scale_" + name, "Scale", (f"head.scale_{name}",)) for name in ("res4", "res3")),
        *(_convolution(name, f"head.{name}") for name in ("feat08", "score08")),
    ]


def _convolution(name: str, key: str) -> Layer:
    return name, "Convolution", (f"{key}.weight", f"{key}.bias")


def _refinement_names(model: RefinementNet) -> Iterator[tuple[str, str]]:
    yield "rnn-conv1", "rnn_conv1"
    for name, layer in model.guidance.named_children():
        if isinstance(layer, nn.Conv2d):
            yield name, f"guidance.{name}"
    yield "rnn-conv2", "rnn_conv2"
    yield "deconv0", "deconv0"


def _resnet(trunk: CaffeResNet) -> Iterator[Layer]:
    yield from _normalised("conv1", "_conv1", "trunk.conv1")
    for stage, blocks in ((2, trunk.res2), (3, trunk.res3), (4, trunk.res4), (5, trunk.res5)):
        for index, block in enumerate(blocks):
            letter = _LETTERS[index] if len(blocks) <= len(_LETTERS) else f"b{index}" if index else "a"
            assert isinstance(block, Bottleneck)
            for branch, _ in block.named_children():
                suffix = f"{stage}{letter}_{branch}"
                yield from _normalised(f"res{suffix}", suffix, f"trunk.res{stage}.{index}.{branch}")


def _normalised(name: str, suffix: str, key: str) -> Iterator[Layer]:
    yield name, "Convolution", (f"{key}.conv.weight",)
    yield f"bn{suffix}", "BatchNorm", (f"{key}.norm.running_mean", f"{key}.norm.running_var")
    yield f"scale{suffix}", "Scale", (f"{key}.norm.weight", f"{key}.norm.bias")


_UPSAMPLERS = {
    "upsample_res5": 4,
    "upsample_res4": 4,
    "upscore": 16,
    "edge_resize6_deconv": 4,
    "edge_resize7_deconv": 4,
    "edge_resize8_deconv": 4,
    "edge_resize9_deconv": 4,
    "elt_resize_deconv": 4,
}
"""Frozen upsamplers and the sides of their kernels. Bilinear ones are constants of our networks."""
_OF_RESNETF = ("upsample_res5", "upsample_res4", "upscore")


def from_caffe(
    blobs: Blobs, model: ResNetF | RefinementNet, source: str | Path, *, partial: bool = False
) -> dict[str, Tensor]:
    """Make a state dict for the model from blobs.

    Args:
        blobs: of the file, by layer.
        model: gives names and shapes; entries that are not in the file keep its values.
        source: the file, for messages.
        partial: accept a file that lacks layers, as Caffe does.

    Raises:
        BadWeights: layers are missing or have other shapes, or an upsampler is not bilinear and the network's is.
    """
    state = {name: value for name, value in model.state_dict().items() if value.device.type != "meta"}
    layers = layers_of(model)
    missing = [name for name, _, _ in layers if name not in blobs and name not in _UPSAMPLERS]
    if len(missing) == len(layers) or (missing and not partial):
        raise BadWeights(f"{source}: {len(missing)} of {len(layers)} layers are missing, the first is {missing[0]}")
    for name, kind, keys in layers:
        if name in blobs:
            values = _statistics(blobs[name], name, source) if kind == "BatchNorm" else blobs[name]
            if len(values) != len(keys):
                raise BadWeights(f"{source}: layer {name} has {len(values)} blobs, expected {len(keys)}")
            for key, value in zip(keys, values, strict=True):
                state[key] = _tensor(value, tuple(state[key].shape), f"{source}: layer {name}")
    own = {name for name, _, _ in layers}
    for name, side in _UPSAMPLERS.items():
        if name in blobs and name not in own and not _is_bilinear(blobs[name][0], side):
            raise BadWeights(f"{source}: layer {name} does not upsample bilinearly, as this network does")
    return state


def _statistics(blobs: Sequence[Blob], name: str, source: str | Path) -> list[Blob]:
    """Mean and variance; Caffe stores both times a factor, and the factor."""
    if len(blobs) != 3 or blobs[2].size != 1:
        raise BadWeights(f"{source}: layer {name} has {len(blobs)} blobs, expected mean, variance and a factor")
    factor = float(blobs[2].reshape(-1)[0])
    scale = np.float32(0 if factor == 0 else 1 / factor)
    return [blobs[0] * scale, blobs[1] * scale]


def _tensor(blob: Blob, shape: tuple[int, ...], what: str) -> Tensor:
    """A copy in our shape; legacy files store vectors as [1, 1, 1, N]."""
    if _without_ones(blob.shape) != _without_ones(shape) or blob.size != int(np.prod(shape)):
        raise BadWeights(f"{what} is {list(blob.shape)}, expected {list(shape)}")
    if not np.isfinite(blob).all():
        raise BadWeights(f"{what} contains NaN or infinity; its training has diverged")
    return torch.from_numpy(np.array(blob, np.float32).reshape(shape))


def _without_ones(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


def _is_bilinear(blob: Blob, side: int) -> bool:
    """Whether an upsampler is the bilinear one that is a constant of our networks.

    Args:
        blob: grouped, [C, 1, k, k], or dense, [C, C, k, k]; a dense one is compared row by row, since it can have
            600 MB.
        side: k.
    """
    kernel = bilinear_kernel(side).numpy()
    if blob.ndim != 4 or blob.shape[2:] != kernel.shape or blob.shape[1] not in (1, blob.shape[0]):
        return False
    for channel, row in enumerate(blob):
        diagonal = row[channel if blob.shape[1] > 1 else 0]
        if not np.allclose(diagonal, kernel, atol=1e-5) or np.count_nonzero(row) != np.count_nonzero(diagonal):
            return False
    return True


def write_official(path: Path, model: ResNetF | RefinementNet, *, upsamplers: bool = False) -> None:
    """Write a ``.caffemodel``.

    Args:
        path: the file to write.
        model: a ResNetF with trunk ``resnet`` of any size, or a refinement network.
        upsamplers: also write bilinear upsamplers, which pycaffe's inference scripts need and its training script fills
            in by itself. For ResNetF they are dense: 872 MB at the official size. Others are always written.

    Raises:
        UserError: the trunk has no Caffe form.
    """
    write_caffemodel(path, _caffe_layers(model, upsamplers))


def _caffe_layers(model: ResNetF | RefinementNet, upsamplers: bool) -> Iterator[tuple[str, str, list[Blob]]]:
    state = model.state_dict()
    for name, kind, keys in layers_of(model):
        blobs = [state[key].detach().cpu().numpy() for key in keys]
        yield name, kind, [*blobs, np.ones(1, np.float32)] if kind == "BatchNorm" else blobs
    if upsamplers and not (isinstance(model, ResNetF) and isinstance(model.head, DenseHead)):
        for name, channels, dense in _upsampled_channels(model):
            yield name, "Deconvolution", [_upsampler(channels, _UPSAMPLERS[name], dense=dense)]


def _upsampled_channels(model: ResNetF | RefinementNet) -> Iterator[tuple[str, int, bool]]:
    if isinstance(model, ResNetF):
        _, res4, res5 = model.trunk.channels
        yield from (("upsample_res5", res5, True), ("upsample_res4", res4 + res5, True), ("upscore", 2, True))
        return
    three = model.architecture.width * 4
    for name, channels in (("6", 2 * three), ("7", 2 * three), ("8", 2 * three), ("9", three)):
        yield f"edge_resize{name}_deconv", channels, False
    yield "elt_resize_deconv", model.architecture.channels, False


def _upsampler(channels: int, side: int, *, dense: bool) -> Blob:
    if not dense:
        return np.broadcast_to(bilinear_kernel(side).numpy(), (channels, 1, side, side)).copy()
    return dense_bilinear(channels, side).numpy()


_TORCHVISION = re.compile(r"layer(\d)\.(\d+)\.(conv|bn|downsample)\.?(\d)(?:\.|$)(.*)")


def from_torchvision_resnet(donor: Mapping[str, Tensor], model: ResNetF) -> dict[str, Tensor]:
    """Put torchvision's ResNet with bottlenecks into the trunk; the stride moves to the 1x1 convolutions.

    torchvision has the stride in the 3x3 convolutions and pads its first pooling, so the result is a start for training
    and computes something else. The head keeps the model's values.

    Raises:
        BadWeights: a layer does not fit the trunk.
    """
    state = model.state_dict()
    for name, value in donor.items():
        if (key := _key_of_torchvision(name)) is not None:
            if key not in state or state[key].shape != value.shape:
                raise BadWeights(f"torchvision's {name} does not fit the network")
            state[key] = value.clone()
    return state


def _key_of_torchvision(name: str) -> str | None:
    stem = {"conv1": "trunk.conv1.conv", "bn1": "trunk.conv1.norm"}
    layer, _, leaf = name.rpartition(".")
    if layer in stem:
        return f"{stem[layer]}.{leaf}"
    found = _TORCHVISION.fullmatch(name)
    if found is None:
        return None
    stage, block, kind, number, leaf = found.groups()
    if kind == "downsample":
        branch, part = "branch1", "conv" if number == "0" else "norm"
    else:
        branch, part = f"branch2{_LETTERS[int(number) - 1]}", "conv" if kind == "conv" else "norm"
    return f"trunk.res{int(stage) + 1}.{block}.{branch}.{part}.{leaf}"
