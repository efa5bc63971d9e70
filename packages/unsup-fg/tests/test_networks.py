"""Networks: official names, outputs, quirks and training steps; official sizes only where VOS_PARITY is set."""

from __future__ import annotations

import json
import zlib
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from unsup_fg.checkpoints import load_weights, save_weights
from unsup_fg.networks import build
from unsup_fg.networks.unets import DenseUNet, DilatedCenter
from unsup_fg.official import architecture_of, from_official, names_of, to_official
from unsup_fg.settings import STUDENTS, Architecture, NetworkName
from vos_shared.errors import BadWeights, UserError
from vos_shared.testing import parity_folder
from vos_shared.training.optimisers import TensorFlowAdam

Array = npt.NDArray[Any]

OFFICIAL: dict[NetworkName, str] = {
    "lowres": "lowres",
    "basic-unet": "basicunet",
    "dense-unet": "denseunet",
    "dilate-unet": "dilateunet",
    "evalseg": "evalseg",
}
TINY = 1 / 32


def official_value(name: str, shape: tuple[int, ...]) -> Array:
    """The deterministic weights with which the official graphs were run."""
    z = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    leaf = name.rpartition("/")[2]
    if leaf == "moving_variance":
        z = 0.9 + 0.1 * np.abs(z)
    elif leaf == "gamma":
        z = 1 + 0.1 * z
    elif leaf in {"bias", "biases"} or leaf.startswith("biases_"):
        z = 0.01 * z
    elif len(shape) in {2, 4}:
        z = z * np.sqrt(2 / np.prod(shape[:-1]))
    else:
        z = 0.1 * z
    return z.astype(np.float32)


def keys(name: NetworkName) -> dict[str, tuple[tuple[int, ...], bool]]:
    """Shape of each variable and whether it is trained, by official name."""
    content = json.loads((parity_folder("unsup-fg") / f"keys_{OFFICIAL[name]}.json").read_text())
    variables = next(value for value in content.values() if isinstance(value, list))
    return {item["name"]: (tuple(item["shape"]), item["trainable"]) for item in variables}


def official(name: NetworkName) -> nn.Module:
    arrays = {key: official_value(key, shape) for key, (shape, _) in keys(name).items()}
    network = build(Architecture(name))
    network.load_state_dict(from_official(arrays, network, name))
    return network


def images(*pictures: Array) -> Tensor:
    """uint8 [S, S, 3] -> [B, 3, S, S] in 0..1."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255


@pytest.mark.parametrize("name", OFFICIAL)
def test_names_shapes_and_what_is_trained_are_official(name: NetworkName) -> None:
    with torch.device("meta"):
        network = build(Architecture(name))
    expected, names = keys(name), names_of(network, name)
    assert set(names.values()) == set(expected)
    trained = {key for key, parameter in network.named_parameters() if parameter.requires_grad}
    for key, value in network.state_dict().items():
        if key in names:
            shape, trainable = expected[names[key]]
            assert value.numel() == np.prod(shape)
            assert (key in trained) == trainable


@pytest.mark.parametrize("name", [name for name in OFFICIAL if name != "dilate-unet"])  # Of that one see the steps.
def test_outputs_are_official(name: NetworkName) -> None:
    network = official(name).eval()
    with np.load(parity_folder("unsup-fg") / f"fixture_{OFFICIAL[name]}.npz") as arrays, torch.inference_mode():
        for picture in ("car", "cat", "noise"):
            inputs = [images(arrays[f"u8_{picture}"])]
            if name == "evalseg":
                inputs.append(images(arrays[f"seg_{picture}"]))
            output = network(*inputs).numpy().ravel()
            tolerance = 5e-3 if name == "dense-unet" else 5e-5
            np.testing.assert_allclose(output, arrays[f"out_{picture}"].ravel(), rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", ["basic-unet", "dense-unet", "dilate-unet"])
def test_two_training_steps_are_official(name: NetworkName) -> None:
    """Losses before, between and after; what the official code does not train does not move.

    Adam's first step moves by the signs of gradients, of which some are rounding: between the steps losses differ by up
    to 2e-4, depending on the number of threads.
    """
    folder = parity_folder("unsup-fg")
    facts = json.loads((folder / f"train_{OFFICIAL[name]}.json").read_text())
    network = official(name).train()
    before = to_official(network, name)
    optimiser = TensorFlowAdam([p for p in network.parameters() if p.requires_grad], lr=1e-3)
    with np.load(folder / f"train_{OFFICIAL[name]}.npz") as arrays:
        pictures, labels = images(*arrays["u8"]), torch.from_numpy(arrays["label"]).permute(0, 3, 1, 2)
    losses = []
    for _ in range(3):
        loss = (network(pictures) - labels).square().mean()
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        if len(losses) < 3:
            optimiser.step()
    for found, expected, tolerance in zip(losses, facts["losses"], (1e-6, 3e-4, 1e-3), strict=True):
        assert found == pytest.approx(expected, rel=tolerance)
    after = to_official(network, name)
    unchanged = [
        key
        for key, value in before.items()
        if np.array_equal(value, after[key]) and not key.endswith(("moving_mean", "moving_variance"))
    ]
    assert sorted(unchanged) == sorted(facts["unchanged"])


def test_moving_statistics_are_official() -> None:
    """In double precision: the official ones are 1.1e-6 off from it, and rounding in single precision is the CPU's."""
    network = official("basic-unet").double().train()
    with np.load(parity_folder("unsup-fg") / "bn_update_basicunet.npz") as arrays:
        with torch.no_grad():
            network(images(*arrays["u8"]).double())
        found = to_official(network, "basic-unet")
        for name in set(arrays) - {"u8"}:
            np.testing.assert_allclose(found[name], arrays[name], rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", OFFICIAL)
def test_narrow_networks_go_through_official_names_and_files(name: NetworkName, tmp_path: Any) -> None:
    architecture = Architecture(name, TINY)
    network = build(architecture).eval()
    arrays = to_official(network, name)
    found = architecture_of({**arrays, "Variable": np.array(7), "eucli/avg": np.array(0.5)})
    assert found == architecture
    other = build(found)
    other.load_state_dict(from_official(arrays, other, name))
    save_weights(tmp_path / "w.safetensors", other, found, {"description": "tiny"})
    read = load_weights(tmp_path / "w.safetensors")
    assert (read.architecture, read.description) == (architecture, "tiny")
    for key, value in network.state_dict().items():
        assert torch.equal(value, read.network.state_dict()[key])


def test_tensorflow_reads_and_writes_them(tmp_path: Any) -> None:
    if find_spec("tensorflow") is None:
        pytest.skip("TensorFlow is not installed")
    from vos_shared.checkpoints.tensorflow import write_checkpoint

    network = build(Architecture("dilate-unet", TINY)).eval()
    extra = {"Variable": np.array(7, np.int32), "eucli/avg": np.array(0.5, np.float32)}
    write_checkpoint(tmp_path / "weights.ckpt", {**to_official(network, "dilate-unet"), **extra})
    read = load_weights(tmp_path / "weights.ckpt")
    picture = torch.rand(1, 3, 256, 256)
    with torch.inference_mode():
        assert torch.equal(network(picture), read.network(picture))
    write_checkpoint(tmp_path / "other.ckpt", {"w": np.zeros(3, np.float32)})
    with pytest.raises(BadWeights, match="no network of unsup-fg"):
        load_weights(tmp_path / "other.ckpt")


def test_weights_of_another_network_are_one_line(tmp_path: Any) -> None:
    path = tmp_path / "w.safetensors"
    architecture = Architecture("dense-unet", TINY)
    save_weights(path, build(architecture), architecture, {})
    with pytest.raises(BadWeights, match="weights of dense-unet; give weights of evalseg"):
        load_weights(path, ["evalseg"])
    arrays = to_official(build(architecture), "dense-unet")
    with pytest.raises(BadWeights, match="no variable down0/conv1_1"):
        from_official(arrays, build(Architecture("basic-unet", TINY)), "basic-unet")
    with pytest.raises(UserError, match="width"):
        Architecture("lowres", 0)


@pytest.mark.parametrize("name", STUDENTS)
def test_a_batch_gives_what_its_images_give_alone(name: NetworkName) -> None:
    torch.manual_seed(0)
    network = build(Architecture(name, 1 / 8)).eval()
    pictures = torch.rand(2, 3, *2 * [Architecture(name).input_size])
    with torch.inference_mode():
        alone = torch.cat([network(picture[None]) for picture in pictures])
        torch.testing.assert_close(network(pictures), alone, rtol=1e-3, atol=1e-4)


class TestFixed:
    def test_dilated_kernels_are_trained(self) -> None:
        for fixed in (False, True):
            network = build(Architecture("dilate-unet", TINY, fixed))
            center = next(module for module in network.modules() if isinstance(module, DilatedCenter))
            assert all(parameter.requires_grad == fixed for parameter in center.parameters())

    def test_block_norms_use_their_moving_averages(self) -> None:
        """Without `fixed`, the moving averages of the blocks have no effect."""
        for fixed in (False, True):
            torch.manual_seed(0)
            network = build(Architecture("dense-unet", 1 / 8, fixed)).eval()
            assert isinstance(network, DenseUNet)
            assert network.head.bias is not None
            nn.init.constant_(network.head.bias, 5)  # So that its ReLU does not give only zeros.
            picture = torch.rand(1, 3, 256, 256)
            with torch.inference_mode():
                before = network(picture)
                for key, value in network.state_dict().items():
                    if "units" in key and key.endswith("running_mean"):
                        value += 1
                assert torch.equal(before, network(picture)) != fixed


def test_the_last_dilations_see_their_centre_only() -> None:
    """The map is 8 x 8 at the lowest level (specification, section 6)."""
    center = DilatedCenter(4)
    x = torch.rand(1, 4, 8, 8)
    before = center(x)
    for layer in list(center.dilate)[3:]:
        assert isinstance(layer, nn.Conv2d)
        kernel = torch.zeros_like(layer.weight)
        kernel[..., 1, 1] = layer.weight[..., 1, 1]
        layer.weight.data = kernel
    assert torch.allclose(before, center(x), atol=1e-6)
