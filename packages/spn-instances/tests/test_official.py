"""Official files: written files are read again, layers have Caffe's names, and errors name the file and the layer."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from spn_instances.checkpoints import load_weights, save_weights
from spn_instances.networks import Architecture, RefinementNet, ResNetF
from spn_instances.official import from_torchvision_resnet, layers_of, write_official
from spn_instances.starts import RANDOM, from_keras_mobilenet, starting_foreground
from vos_shared.checkpoints.caffe import read_caffemodel, write_caffemodel
from vos_shared.errors import BadWeights, UserError


@pytest.mark.parametrize("upsamplers", [False, True])
def test_a_caffemodel_is_the_network_that_was_written(tmp_path: Path, tiny: ResNetF, upsamplers: bool) -> None:
    path = tmp_path / "net.caffemodel"
    write_official(path, tiny, upsamplers=upsamplers)
    assert ("upsample_res4" in read_caffemodel(path)) == upsamplers
    read = load_weights(path, ResNetF).model
    assert read.architecture == tiny.architecture
    x = torch.randn(1, 3, 40, 50)
    torch.testing.assert_close(read(x), tiny(x))


@pytest.mark.parametrize("upsamplers", [False, True])
def test_a_refinement_caffemodel_is_the_network_that_was_written(
    tmp_path: Path, tiny_refinement: RefinementNet, upsamplers: bool
) -> None:
    path = tmp_path / "net.caffemodel"
    write_official(path, tiny_refinement, upsamplers=upsamplers)
    read = load_weights(path, RefinementNet).model
    x, coarse = torch.randn(1, 3, 32, 40), torch.rand(1, 2, 32, 40)
    torch.testing.assert_close(read(x, coarse), tiny_refinement(x, coarse))


def test_our_own_files_store_their_architecture(tmp_path: Path, tiny: ResNetF, tiny_refinement: RefinementNet) -> None:
    for name, model in (("fg", tiny), ("spn", tiny_refinement)):
        save_weights(tmp_path / f"{name}.safetensors", model, {"description": "a test"})
    assert load_weights(tmp_path / "fg.safetensors", ResNetF).model.architecture == tiny.architecture
    assert load_weights(tmp_path / "spn.safetensors", RefinementNet).description == "a test"
    with pytest.raises(BadWeights, match="refinement, not of spn-instances foreground"):
        load_weights(tmp_path / "spn.safetensors", ResNetF)


def test_the_official_network_has_caffes_layer_names() -> None:
    with torch.device("meta"):
        names = [name for name, _, _ in layers_of(ResNetF())]
    assert len(names) == 3 * 104 + 4
    assert {"res2a_branch1", "bn4b22_branch2c", "scale5c_branch2b", "res3b3_branch2a", "scale_conv1"} <= set(names)


def rewritten(path: Path, tiny: ResNetF, **changes: np.ndarray | None) -> None:
    """Write the network with the first blobs of some layers replaced, or without some layers (None)."""
    write_official(path, tiny, upsamplers=True)
    layers = read_caffemodel(path)
    kept = {name: blobs for name, blobs in layers.items() if changes.get(name, blobs) is not None}
    write_caffemodel(
        path.with_name("changed.caffemodel"),
        [(name, "", [changes.get(name, blobs[0]), *blobs[1:]]) for name, blobs in kept.items()],  # type: ignore[list-item]
    )
    path.with_name("changed.caffemodel").replace(path)


def test_layers_that_do_not_fit_are_named(tmp_path: Path, tiny: ResNetF) -> None:
    path = tmp_path / "net.caffemodel"
    rewritten(path, tiny, res2a_branch2b=np.zeros((2, 2, 5, 5), np.float32))
    with pytest.raises(BadWeights, match=re.escape("layer res2a_branch2b is [2, 2, 5, 5], expected [2, 2, 3, 3]")):
        load_weights(path, ResNetF)
    rewritten(path, tiny, scale2a_branch2b=None)
    with pytest.raises(BadWeights, match="1 of 82 layers are missing, the first is scale2a_branch2b"):
        load_weights(path, ResNetF)
    rewritten(path, tiny, feat08=np.full((3, 112, 1, 1), np.nan, np.float32))
    with pytest.raises(BadWeights, match="feat08 contains NaN"):
        load_weights(path, ResNetF)


@torch.inference_mode()
def test_upsamplers_that_are_not_bilinear_are_kept(tmp_path: Path, tiny: ResNetF) -> None:
    path = tmp_path / "net.caffemodel"
    write_official(path, tiny, upsamplers=True)
    layers = read_caffemodel(path)
    changed = layers["upscore"][0].copy()
    changed[0, 1, 3, 5] = 0.1  # From background to foreground.
    rewritten(path, tiny, upscore=changed)
    read = load_weights(path, ResNetF).model
    x = torch.randn(1, 3, 40, 56)
    maps: list[torch.Tensor] = []
    tiny.head.score08.register_forward_hook(lambda _, __, out: maps.append(out))
    expected = tiny(x)
    kernel = torch.zeros(1, 1, 16, 16)
    kernel[..., 3, 5] = 0.1
    expected[:, 1:] += torch.nn.functional.conv_transpose2d(maps[0][:, :1], kernel, stride=8)[..., 8:48, 8:64]
    torch.testing.assert_close(read(x), expected)
    write_official(tmp_path / "again.caffemodel", read)
    save_weights(tmp_path / "ours.safetensors", read, {})
    for again in ("again.caffemodel", "ours.safetensors"):
        torch.testing.assert_close(load_weights(tmp_path / again, ResNetF).model(x), expected)


def test_other_upsamplers_of_a_refinement_network_are_refused(tmp_path: Path, tiny_refinement: RefinementNet) -> None:
    path = tmp_path / "net.caffemodel"
    write_official(path, tiny_refinement, upsamplers=True)
    layers = read_caffemodel(path) | {"elt_resize_deconv": [np.ones((3, 1, 4, 4), np.float32)]}
    write_caffemodel(path, [(name, "", blobs) for name, blobs in layers.items()])
    with pytest.raises(BadWeights, match="layer elt_resize_deconv does not upsample bilinearly"):
        load_weights(path, RefinementNet)


def test_a_start_with_other_upsamplers_is_refused(tmp_path: Path, tiny: ResNetF) -> None:
    path = tmp_path / "net.caffemodel"
    rewritten(path, tiny, upscore=np.ones((2, 2, 16, 16), np.float32))
    with pytest.raises(BadWeights, match="layer upscore does not upsample bilinearly"):
        starting_foreground(tiny.architecture, str(path))


def test_upsamplers_of_another_size_are_refused(tmp_path: Path, tiny: ResNetF) -> None:
    path = tmp_path / "net.caffemodel"
    rewritten(path, tiny, upscore=np.ones((2, 2, 3, 3), np.float32))
    with pytest.raises(BadWeights, match=re.escape("layer upscore is [2, 2, 3, 3], expected [2, 2, 16, 16]")):
        load_weights(path, ResNetF)


def test_other_caffemodels_are_refused(tmp_path: Path) -> None:
    write_caffemodel(tmp_path / "x.caffemodel", [("fc6", "InnerProduct", [np.zeros((2, 3), np.float32)])])
    with pytest.raises(BadWeights, match="neither of ResNetF nor of the refinement network"):
        load_weights(tmp_path / "x.caffemodel", ResNetF)


def test_a_trunk_without_a_caffe_form_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="mobilenet has no Caffe form"):
        write_official(tmp_path / "x.caffemodel", ResNetF(Architecture("mobilenet", hidden=2)))


def test_statistics_are_divided_by_their_factor(tmp_path: Path, tiny: ResNetF) -> None:
    path = tmp_path / "net.caffemodel"
    write_official(path, tiny)
    layers = {
        name: [2 * blob for blob in blobs] if name.startswith("bn") else blobs
        for name, blobs in read_caffemodel(path).items()
    }
    write_caffemodel(tmp_path / "twice.caffemodel", [(name, "", blobs) for name, blobs in layers.items()])
    x = torch.randn(1, 3, 40, 50)
    torch.testing.assert_close(load_weights(tmp_path / "twice.caffemodel", ResNetF).model(x), tiny(x))


def test_msra_weights_start_the_trunk_and_leave_the_head(tmp_path: Path, tiny: ResNetF) -> None:
    path = tmp_path / "net.caffemodel"
    rewritten(path, tiny, feat08=None, score08=None, scale_res4=None, scale_res3=None)
    model = starting_foreground(tiny.architecture, str(path))
    torch.testing.assert_close(model.trunk.state_dict(), tiny.trunk.state_dict())
    assert model.head.scale_res4[0] == pytest.approx(0.2)


def test_torchvisions_bottleneck_network_starts_the_trunk() -> None:
    donor = torchvision.models.ResNet(torchvision.models.resnet.Bottleneck, [1, 1, 4, 1]).eval()
    model = ResNetF(Architecture("resnet", (1, 1, 4, 1))).eval()
    model.load_state_dict(from_torchvision_resnet(donor.state_dict(), model))
    x = torch.rand(1, 64, 9, 9)
    torch.testing.assert_close(model.trunk.res2(x), donor.layer1(x))  # type: ignore[operator]
    used = sum(value.numel() for name, value in donor.state_dict().items() if not name.startswith("fc."))
    assert used == sum(value.numel() for value in model.trunk.state_dict().values())


def test_keras_mobilenet_starts_the_small_trunk() -> None:
    model = ResNetF(Architecture("mobilenet", hidden=2)).eval()
    rng = np.random.default_rng(0)
    arrays = {}
    for name, value in model.trunk.state_dict().items():
        if name.endswith("conv.weight"):
            layer, depthwise = donor_name(name.removesuffix(".conv.weight"))
            kernel = rng.normal(0, 0.1, tuple(value.shape)).astype(np.float32)
            stored = kernel.transpose(2, 3, 0, 1) if depthwise else kernel.transpose(2, 3, 1, 0)
            arrays[f"{layer}|{'depthwise_' if depthwise else ''}kernel"] = stored
            for leaf in ("gamma", "beta", "moving_mean", "moving_variance"):
                arrays[f"{layer}_bn|{leaf}"] = rng.uniform(0.5, 1, value.shape[0]).astype(np.float32)
    model.load_state_dict(from_keras_mobilenet(arrays, model))
    torch.testing.assert_close(
        model.state_dict()["trunk.blocks.3.pointwise.conv.weight"],
        torch.from_numpy(arrays["conv_pw_4|kernel"].transpose(3, 2, 0, 1).copy()),
    )
    # From BGR minus mean the stem computes the same as the donor from RGB / 127.5 - 1.
    rgb = torch.rand(1, 3, 5, 5) * 255
    ours = rgb.flip(1) - torch.tensor([104.00698793, 116.66876762, 122.67891434])[:, None, None]
    stem = torch.from_numpy(arrays["conv1|kernel"].transpose(3, 2, 0, 1).copy())
    theirs = torch.nn.functional.conv2d(rgb / 127.5 - 1, stem)
    state = model.state_dict()
    shift = torch.from_numpy(arrays["conv1_bn|moving_mean"]) - state["trunk.stem.norm.running_mean"]
    found = torch.nn.functional.conv2d(ours, state["trunk.stem.conv.weight"]) + shift[:, None, None]
    torch.testing.assert_close(found, theirs, atol=1e-4, rtol=1e-4)
    del arrays["conv_dw_7_bn|beta"]
    with pytest.raises(BadWeights, match=re.escape("conv_dw_7_bn|beta is missing")):
        from_keras_mobilenet(arrays, model)


def donor_name(layer: str) -> tuple[str, bool]:
    """Keras' name of one of our layers, and whether it is depthwise."""
    if layer == "stem":
        return "conv1", False
    _, number, part = layer.split(".")
    return f"conv_{'dw' if part == 'depthwise' else 'pw'}_{int(number) + 1}", part == "depthwise"


def test_a_random_start_is_the_network_as_initialised() -> None:
    architecture = Architecture("mobilenet", hidden=2)
    torch.manual_seed(0)
    expected = ResNetF(architecture)
    torch.manual_seed(0)
    found = starting_foreground(architecture, RANDOM)
    torch.testing.assert_close(found.state_dict(), expected.state_dict(), rtol=0, atol=0)
