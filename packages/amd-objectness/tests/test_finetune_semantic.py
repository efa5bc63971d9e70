"""Fine-tuning on a tiny VOC tree: it learns, a resumed run gives the same weights, other folders are refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from amd_objectness.checkpoints import Weights, save_weights, untrained
from amd_objectness.cli import main
from amd_objectness.finetune_semantic import (
    Objective,
    SemanticResult,
    VocSamples,
    augmented,
    confusion,
    finetune,
    load_fcn,
    network_for,
)
from amd_objectness.presets import SemanticSettings
from amd_objectness.settings import Architecture
from vos_shared.datasets import voc2012
from vos_shared.errors import UserError
from vos_shared.masks import write_mask
from vos_shared.runtime.distributed import fabric as make_fabric
from vos_shared.testing import RunCommand
from vos_shared.training.arguments import RunOptions

TINY = SemanticSettings(batch=2, steps=4, crop=33, scale=(0.8, 1.2), learning_rate=0.01)


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images: a bright square of class 3 on dark noise, void around it."""
    root = tmp_path_factory.mktemp("voc")
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    random = np.random.default_rng(0)
    for k, name in enumerate("abc"):
        frame, label = random.integers(0, 60, (40, 48, 3), np.uint8), np.zeros((40, 48), np.uint8)
        frame[8:28, 6 + 5 * k : 28 + 5 * k] += 180
        label[7:29, 5 + 5 * k : 29 + 5 * k] = 255
        label[8:28, 6 + 5 * k : 28 + 5 * k] = 3
        Image.fromarray(frame).save(root / f"JPEGImages/{name}.jpg", quality=95)
        write_mask(root / f"SegmentationClass/{name}.png", label)
    for split in ("train", "val"):
        (root / f"ImageSets/Segmentation/{split}.txt").write_text("a\nb\nc\n")
    return root


@pytest.fixture(scope="module")
def weights() -> Weights:
    """Weights of a narrow network, like those that come with the package."""
    return untrained(Architecture("resnet18", width=16, head_width=32, motion_size=(64, 64)))


def run(voc: Path, folder: Path, weights: Weights, settings: SemanticSettings, *, resume: bool = False) -> Path | None:
    torch.manual_seed(0)
    options = RunOptions(folder, resume, minutes=60)
    return finetune(network_for(weights), voc2012(voc), settings, options, make_fabric("cpu", "fp32"))


def test_the_network_starts_from_the_backbone(weights: Weights) -> None:
    model = network_for(weights)
    assert torch.equal(model.backbone.conv1.weight, weights.state["backbone2.conv1.weight"])
    assert model(torch.zeros(1, 3, 33, 40)).shape == (1, 21, 33, 40)


def test_a_crop_keeps_labels_on_their_pixels() -> None:
    label = np.zeros((20, 30), np.uint8)
    label[5:15, 10:20] = 7
    frame = np.repeat(label[..., None] * 30, 3, axis=2)
    for seed in range(5):
        image, cut = augmented(frame, label, replace(TINY, scale=(1, 1)), np.random.default_rng(seed))
        assert image.shape == (33, 33, 3)
        assert (cut[20:] == 255).all()
        assert (image[..., 0] == np.where(cut == 255, 0, cut * 30)).all()


def test_void_has_no_loss_and_no_gradient(weights: Weights) -> None:
    objective = Objective(network_for(weights))
    image = torch.randint(0, 256, (2, 3, 33, 33), dtype=torch.uint8)
    loss = objective({"image": image, "label": torch.full((2, 33, 33), 255)})
    loss.backward()
    assert loss == 0
    assert all(p.grad is None or not p.grad.any() for p in objective.parameters())


def test_samples_depend_on_step_and_slot_alone(voc: Path) -> None:
    samples = VocSamples(voc2012(voc), TINY, 2)
    first = samples[3, 1]
    assert torch.equal(VocSamples(voc2012(voc), TINY, 2)[3, 1]["image"], first["image"])
    assert not torch.equal(samples[0, 1]["image"], first["image"])


def test_fine_tuning_raises_the_miou(voc: Path, tmp_path: Path, weights: Weights) -> None:
    sequences, device = voc2012(voc), torch.device("cpu")
    path = run(voc, tmp_path / "run", weights, replace(TINY, steps=20))
    assert path is not None
    after = SemanticResult.of(confusion(load_fcn(path), sequences, device))
    assert after.classes["bird"] > 0.5
    assert math.isnan(after.classes["cow"])
    assert after.miou > SemanticResult.of(confusion(network_for(weights), sequences, device)).miou


def test_a_resumed_run_equals_an_uninterrupted_one(
    voc: Path, tmp_path: Path, weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(voc, tmp_path / "whole", weights, TINY)
    assert whole is not None
    read = VocSamples.__getitem__

    def fail_late(samples: VocSamples, key: tuple[int, int]) -> dict[str, torch.Tensor]:
        if key[0] == 2:
            raise UserError("the disk is gone")
        return read(samples, key)

    monkeypatch.setattr(VocSamples, "__getitem__", fail_late)
    with pytest.raises(UserError, match="the disk is gone"):
        run(voc, tmp_path / "parts", weights, TINY)
    monkeypatch.setattr(VocSamples, "__getitem__", read)
    parts = run(voc, tmp_path / "parts", weights, TINY, resume=True)
    assert parts is not None
    expected = load_fcn(whole).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in load_fcn(parts).state_dict().items())


def test_the_command_trains_and_writes_miou(
    voc: Path, tmp_path: Path, weights: Weights, run_command: RunCommand
) -> None:
    save_weights(tmp_path / "start.safetensors", weights)
    start = ("finetune-semantic", "--weights", tmp_path / "start.safetensors", "--device", "cpu", "--workers", 0)
    small = ("--steps", 2, "--batch", 2, "--crop", 33)
    done = run_command(main, "amd-objectness", *start, *small, "--root", voc, "--output", tmp_path / "run")
    assert done.code == 0, done.stderr
    assert "3 images" in done.stdout
    assert set(json.loads((tmp_path / "run/miou.json").read_text())) == {"mIoU", "images", "classes"}
    bad = run_command(main, "amd-objectness", *start, *small, "--root", tmp_path, "--output", tmp_path / "other")
    assert bad.code == 2
    assert "is not a VOC 2012 folder" in bad.stderr


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"crop": 4}, "--crop is 4"),
        ({"scale": (2.0, 1.0)}, "--scale 2.0 1.0"),
        ({"steps": 0}, "--steps is 0"),
        ({"learning_rate": 0.0}, "--learning-rate is 0.0"),
        ({"momentum": -1.0}, "--momentum is -1.0"),
        ({"weight_decay": -1.0}, "--weight-decay is -1.0"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        replace(TINY, **wrong)


def test_a_file_of_another_network_is_refused(tmp_path: Path, weights: Weights) -> None:
    save_weights(tmp_path / "amd.safetensors", weights)
    with pytest.raises(UserError, match="weights of amd-objectness, not of amd-objectness-fcn"):
        load_fcn(tmp_path / "amd.safetensors")
