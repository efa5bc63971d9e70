"""The networks: the official numbers, and faster forms that compute the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from spn_instances.images import network_input, soft_to_grey
from spn_instances.networks import Architecture, Refinement, RefinementNet, ResNetF
from spn_instances.networks.head import DenseHead, FusionHead
from spn_instances.networks.trunks import Features
from spn_instances.official import layers_of, write_official
from spn_instances.settings import TrunkName
from vos_shared.checkpoints.caffe import read_caffemodel
from vos_shared.testing import parity_folder


def dense(x: Tensor, side: int) -> Tensor:
    """Upsample as Caffe does: with a kernel for each pair of channels, zero unless they are equal."""
    taps = 1 - (torch.arange(side) - (side / 2 - 0.5)).abs() / (side / 2)
    weight = torch.zeros(x.shape[1], x.shape[1], side, side)
    weight[range(x.shape[1]), range(x.shape[1])] = torch.outer(taps, taps)
    return F.conv_transpose2d(x, weight, stride=side // 2)


def literal_head(head: FusionHead, features: Features, size: tuple[int, int]) -> Tensor:
    """The head as the specification defines it, section 2.2."""
    res3, res4, res5 = features
    scaled4 = res4 * head.scale_res4[:, None, None]
    cropped5 = dense(res5, 4)[..., 2 : 2 + res4.shape[2], 2 : 2 + res4.shape[3]]
    upsampled4 = dense(torch.cat([scaled4, cropped5], 1), 4)
    cropped4 = upsampled4[..., : res3.shape[2], : res3.shape[3]]
    x = torch.cat([cropped4, res3 * head.scale_res3[:, None, None]], 1)
    return dense(head.score08(head.feat08(x)), 16)[..., 8 : 8 + size[0], 8 : 8 + size[1]]


@pytest.fixture(scope="module")
def official() -> dict[str, Tensor]:
    arrays = np.load(parity_folder("spn-instances") / "fixture_perobj.npz")
    return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


@pytest.mark.parametrize("size", ["s1", "s2"])
@torch.inference_mode()
def test_scores_are_those_of_the_official_network(
    official: dict[str, Tensor], official_network: ResNetF, size: str
) -> None:
    x = np.random.RandomState(1234 if size == "s1" else 1235).standard_normal(official[f"x_{size}"].shape) * 60
    np.testing.assert_array_equal(official[f"x_{size}"], x.astype(np.float32))
    scores = official_network(official[f"x_{size}"])
    torch.testing.assert_close(scores, official[f"B_{size}_score"], atol=2e-4, rtol=0)
    soft = scores.softmax(1)
    torch.testing.assert_close(soft, official[f"B_{size}_prob"], atol=1e-4, rtol=0)
    grey = soft_to_grey(soft[0, 1].numpy()).astype(int)
    assert np.abs(grey - official[f"B_{size}_png"].numpy().astype(int)).max() <= 1
    decided = scores[0].argmax(0) * 255
    torch.testing.assert_close(decided.to(torch.uint8), official[f"B_{size}_argmax255"])


def test_weights_of_the_recipe_are_the_listed_ones(official_blobs: dict[str, list[np.ndarray]]) -> None:
    keys = json.loads((parity_folder("spn-instances") / "keys.json").read_text())
    listed = [key for key in keys if key["type"] != "Deconvolution"]
    assert len(keys) == 633
    assert sum(map(len, official_blobs.values())) == len(listed)
    for key in listed:
        blob = official_blobs[key["layer"]][key["blob"]]
        assert list(blob.shape) == key["shape"]
        np.testing.assert_allclose(blob.ravel()[:3], key["head"], rtol=1e-6)


def test_upsamplers_have_the_listed_names(tiny: ResNetF, tmp_path: Path) -> None:
    keys = json.loads((parity_folder("spn-instances") / "keys.json").read_text())
    listed = {key["layer"]: key["shape"][2:] for key in keys if key["type"] == "Deconvolution"}
    write_official(tmp_path / "net.caffemodel", tiny, upsamplers=True)
    written = read_caffemodel(tmp_path / "net.caffemodel")
    assert {name: list(written[name][0].shape[2:]) for name in listed} == listed


@pytest.mark.parametrize(("name", "classes"), [("spn_voc21_keys", 21), ("spn_two_keys", 2)])
def test_layers_of_the_refinement_network_are_the_listed_ones(name: str, classes: int) -> None:
    keys = json.loads((parity_folder("spn-instances") / f"{name}.json").read_text())
    with torch.device("meta"):
        model = RefinementNet(Refinement(classes))
    state = model.state_dict()
    ours = {
        f"{layer}/{blob}": list(state[key].shape)
        for layer, _, names in layers_of(model)
        for blob, key in enumerate(names)
    }
    assert ours == {key["key"]: key["shape"] for key in keys if key["type"] != "Deconvolution"}


@pytest.mark.parametrize(("name", "classes"), [("voc21", 21), ("two", 2)])
@torch.inference_mode()
def test_the_refinement_network_has_the_official_numbers(
    name: str, classes: int, official_refinement: Callable[[int], RefinementNet]
) -> None:
    arrays = np.load(parity_folder("spn-instances") / "fixture_spn_net.npz")
    expected = {key.removeprefix(f"{name}_"): torch.from_numpy(arrays[key]) for key in arrays.files if name in key}
    model = official_refinement(classes)
    x = expected["x"]
    gates = model.guidance(x[:, :3])
    encoded = model.rnn_conv1(x[:, 3:])
    model.propagation.rounds = 1
    once = model.propagation(encoded, gates)
    model.propagation.rounds = 2
    twice = model.propagation(encoded, gates)
    logits = model(x[:, :3], x[:, 3:])
    found = {"rnn-conv1": encoded, "guide_conv2": gates, "eltwisemax_gate1": once, "eltwisemax_gate2": twice}
    for key, value in {**found, "deconv0": logits}.items():
        largest = float(expected[key].abs().max())
        torch.testing.assert_close(value, expected[key], atol=5e-5 * largest, rtol=0)
    torch.testing.assert_close(logits.softmax(1), expected["prob"], atol=5e-4, rtol=0)


@torch.inference_mode()
def test_projecting_first_equals_the_literal_head(tiny: ResNetF) -> None:
    x = torch.randn(1, 3, 100, 150) * 60
    features = tiny.trunk(x)
    literal = literal_head(tiny.head, features, (100, 150))
    torch.testing.assert_close(tiny(x), literal, atol=1e-4, rtol=1e-4)
    head = DenseHead(tiny.trunk.channels, 3, tiny.architecture.offsets)
    assert head.load_state_dict(tiny.head.state_dict(), strict=False).unexpected_keys == []
    torch.testing.assert_close(head(features, (100, 150)), literal, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("trunk", get_args(TrunkName))
@torch.inference_mode()
def test_frames_of_any_size_have_scores_of_their_size(trunk: TrunkName, tiny: ResNetF) -> None:
    model = tiny if trunk == "resnet" else ResNetF(Architecture(trunk, hidden=3)).eval()
    for height, width in [*((31 + rest, 40 + rest) for rest in range(8)), (1, 1), (2, 9), (64, 33)]:
        assert model(torch.randn(1, 3, height, width)).shape == (1, 2, height, width)


@pytest.mark.parametrize("rest", range(8))
@torch.inference_mode()
def test_only_sizes_at_which_the_original_aborts_are_padded(tiny: ResNetF, rest: int) -> None:
    x = torch.randn(1, 3, 80 + rest, 86)  # 86 is 6 modulo 8, as 854 is.
    official = literal_head(tiny.head, tiny.trunk(x), (80 + rest, 86))
    if rest in (1, 2):
        assert official.shape[2] < 80 + rest, "the original aborts: its scores are shorter than the frame"
        x = F.pad(x, (0, 0, 0, 3 - rest), mode="replicate")
        official = literal_head(tiny.head, tiny.trunk(x), (80 + rest, 86))
    torch.testing.assert_close(tiny(x)[:, :, : 80 + rest], official, atol=1e-4, rtol=1e-4)


def test_statistics_stay_frozen_in_training(tiny: ResNetF) -> None:
    before = {name: value.clone() for name, value in tiny.named_buffers()}
    tiny.train()(torch.randn(1, 3, 40, 40))
    torch.testing.assert_close(dict(tiny.named_buffers()), before)


@torch.inference_mode()
def test_each_mask_is_refined_by_itself_with_the_guidance_of_one_image(tiny_refinement: RefinementNet) -> None:
    image, soft = torch.randn(1, 3, 45, 70) * 60, torch.rand(3, 1, 45, 70)
    coarse = torch.cat([1 - soft, soft], 1)
    together = tiny_refinement(image, coarse)
    assert together.shape == (3, 2, 45, 70)
    torch.testing.assert_close(together[1:2], tiny_refinement(image, coarse[1:2]), atol=1e-5, rtol=1e-4)


def test_frames_become_blue_green_red_minus_the_mean() -> None:
    frame = np.zeros((2, 3, 3), np.uint8)
    frame[..., 0] = 255
    x = network_input(frame)
    torch.testing.assert_close(x[:, 0, 0], torch.tensor([-104.00699, -116.66877, 255 - 122.67891]), atol=1e-4, rtol=0)
