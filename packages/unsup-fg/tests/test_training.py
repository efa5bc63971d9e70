"""Students learn from records; runs resume as if they had never stopped."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from unsup_fg.checkpoints import load_weights
from unsup_fg.presets import TrainingSettings
from unsup_fg.records import EvalSegRecord, Records, StudentRecord
from unsup_fg.settings import Architecture
from unsup_fg.tfrecords import RecordWriter
from unsup_fg.training import train
from vos_shared.errors import BadDataset, UserError
from vos_shared.runtime.distributed import fabric
from vos_shared.training.arguments import RunOptions

LOWRES = Architecture("lowres", 1 / 64)
SETTINGS = TrainingSettings(steps=4, batch=2, resized=160, save_steps=2)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Bright squares on dark ground, and masks of them."""
    random = np.random.default_rng(0)
    with RecordWriter([tmp_path / "records" / f"train-{index:05d}-of-00002" for index in range(2)]) as writer:
        for index in range(6):
            soft_mask = np.zeros((256, 256), np.uint8)
            top, left = random.integers(0, 128, 2)
            soft_mask[top : top + 128, left : left + 128] = 255
            frame = np.where(soft_mask[..., None] > 0, (230, 40, 30), (20, 40, 60)).astype(np.uint8)
            writer.write(index % 2, StudentRecord.of(f"{index}.png", frame, soft_mask).example())
    return tmp_path / "records"


def trained(
    shards: Path, folder: Path, settings: TrainingSettings, architecture: Architecture = LOWRES, *, resume: bool = False
) -> dict[str, torch.Tensor]:
    ours = fabric("cpu")
    ours.launch()
    path = train(architecture, Records(shards), settings, RunOptions(folder, resume), ours)
    assert path is not None
    return load_weights(path).network.state_dict()


def test_training_resumes_as_if_it_had_never_stopped(shards: Path, tmp_path: Path) -> None:
    whole = trained(shards, tmp_path / "whole", SETTINGS)
    trained(shards, tmp_path / "parts", replace(SETTINGS, steps=2))
    with pytest.raises(UserError, match="seed 0, not 3"):
        trained(shards, tmp_path / "parts", replace(SETTINGS, seed=3), resume=True)
    with pytest.raises(UserError, match="network"):
        trained(shards, tmp_path / "parts", SETTINGS, replace(LOWRES, width=1 / 32), resume=True)
    parts = trained(shards, tmp_path / "parts", SETTINGS, resume=True)
    assert all(torch.equal(value, parts[key]) for key, value in whole.items())


def test_a_student_learns(shards: Path, tmp_path: Path) -> None:
    """Its error falls below that of the best constant map."""
    settings = replace(SETTINGS, steps=60, batch=4, learning_rate=5e-3, save_steps=1000)
    trained(shards, tmp_path / "run", settings, replace(LOWRES, width=1 / 32))
    network = load_weights(tmp_path / "run" / "last.safetensors").network
    records = Records(shards)
    images = torch.stack([torch.from_numpy(records.student(i).frame.copy()).permute(2, 0, 1) / 255 for i in range(6)])
    masks = torch.stack([torch.from_numpy(records.student(i).soft_mask.copy())[::8, ::8].float() for i in range(6)])
    with torch.inference_mode():
        maps = network(torch.nn.functional.interpolate(images, 128))[:, 0]
    assert (maps - masks).square().mean() < masks.var()


def test_evalseg_learns_labels_and_resumes(tmp_path: Path) -> None:
    """Frames are noise; the mask's brightness is the label."""
    random = np.random.default_rng(0)
    with RecordWriter([tmp_path / "records" / "train-00000-of-00001"]) as writer:
        for label in range(0, 100, 20):
            frame = random.integers(0, 256, (128, 128, 3), np.uint8)
            mask = np.full((128, 128), 2 * label, np.uint8)
            writer.write(0, EvalSegRecord(f"{label}.png", frame, mask, label).example())
    architecture, settings = Architecture("evalseg", 1 / 64), TrainingSettings(steps=4, batch=2, resized=128)
    whole = trained(tmp_path / "records", tmp_path / "whole", settings, architecture)
    trained(tmp_path / "records", tmp_path / "parts", replace(settings, steps=2), architecture)
    parts = trained(tmp_path / "records", tmp_path / "parts", settings, architecture, resume=True)
    assert all(torch.equal(value, parts[key]) for key, value in whole.items())
    longer = replace(settings, steps=40, batch=5, learning_rate=3e-3)
    trained(tmp_path / "records", tmp_path / "longer", longer, architecture)
    losses = [json.loads(line) for line in (tmp_path / "longer" / "log.jsonl").read_text().splitlines()]
    assert losses[-1]["train/loss"] < 0.7 * losses[0]["train/loss"]


def test_what_cannot_be_trained_is_one_line(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(BadDataset, match="record of students"):
        trained(shards, tmp_path / "a", replace(SETTINGS, resized=128), Architecture("evalseg", 1 / 64))
    with pytest.raises(UserError, match="takes 256"):
        trained(shards, tmp_path / "b", SETTINGS, Architecture("basic-unet", 1 / 64))
    with pytest.raises(UserError, match="--learning-rate is -1"):
        replace(SETTINGS, learning_rate=-1.0)
    shard = shards / "train-00001-of-00002"
    content = bytearray(shard.read_bytes())
    content[5000] ^= 1
    shard.write_bytes(content)
    with pytest.raises(BadDataset, match="wrong checksum"):
        trained(shards, tmp_path / "c", SETTINGS)
