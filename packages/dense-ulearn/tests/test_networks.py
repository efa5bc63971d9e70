from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dense_ulearn.inference import NetworkFeatures
from dense_ulearn.networks import DenseNetwork
from dense_ulearn.settings import CHANNELS, Layer
from vos_shared.layers.imagenet import normalise_images
from vos_shared.runtime.device import autocast


def test_network_has_the_published_size() -> None:
    network = DenseNetwork()
    assert len(network.state_dict()) == 129
    assert sum(value.numel() for value in network.parameters()) == 11_505_856
    assert sum(value.numel() for value in network.fast_net.backbone.parameters()) == 11_176_512


def test_entries_are_those_of_the_official_program(parity: Path, recipe_state: dict[str, Tensor]) -> None:
    expected = json.loads((parity / "keys.json").read_text())
    assert list(recipe_state) == [entry["key"] for entry in expected]
    for entry in expected:
        value = recipe_state[entry["key"]]
        assert list(value.shape) == entry["shape"]
        digest = hashlib.sha256(value.numpy().tobytes()).hexdigest()
        assert digest[:16] == entry["sha256_f32_first16"]


@pytest.mark.parametrize("name", CHANNELS)
@pytest.mark.parametrize("image", ["a", "b"])
def test_features_equal_the_official_ones(
    image: str, name: Layer, parity: Path, recipe_network: DenseNetwork, device: torch.device
) -> None:
    numbers = np.load(parity / "fixture_features.npz")
    network = recipe_network.to(device)
    with torch.inference_mode(), autocast(device, torch.float32):
        images = torch.from_numpy(numbers[f"{image}_input"]).to(device)
        unit, raw = network(images), network(images, norm=False)
        alone = network.layer(images, name)
    np.testing.assert_allclose(getattr(unit, name).cpu(), numbers[f"{image}_{name}"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(alone.cpu(), numbers[f"{image}_{name}"], rtol=0, atol=1e-6)
    expected = numbers[f"{image}_{name}_raw"]
    np.testing.assert_allclose(getattr(raw, name).cpu(), expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(("size", "cells"), [((96, 128), (12, 16)), ((97, 131), (13, 17)), ((9, 1), (2, 1))])
def test_all_outputs_have_stride_eight_and_unit_length(size: tuple[int, int], cells: tuple[int, int]) -> None:
    network = DenseNetwork().eval()
    with torch.inference_mode():
        features = network(torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0)))
    for name, channels in CHANNELS.items():
        output = getattr(features, name)
        assert output.shape == (2, channels, *cells)
        torch.testing.assert_close(output.norm(dim=1), torch.ones(2, *cells))


def test_features_of_a_480p_frame_are_the_networks_own_to_the_last_bit(recipe_network: DenseNetwork) -> None:
    """Features that differ by 5e-7 change the order of nearly equal similarities, and so cells of the label map."""
    frame = np.random.default_rng(0).integers(0, 256, (480, 854, 3), np.uint8)
    images = normalise_images(torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 255)
    with torch.inference_mode():
        expected = recipe_network.layer(images, "res4")[0].permute(1, 2, 0)
    assert torch.equal(NetworkFeatures(recipe_network)(frame), expected)


def test_read_only_frames_are_taken_without_a_warning(recipe_network: DenseNetwork) -> None:
    frame = np.zeros((32, 40, 3), np.uint8)
    frame.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        NetworkFeatures(recipe_network)(frame)
