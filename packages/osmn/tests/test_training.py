"""The training loop: resume, work that is kept, refusals; the published settings."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from osmn.checkpoints import read_weights
from osmn.data import (
    Example,
    Source,
    StillImages,
)
from osmn.networks import OSMN, Architecture, initialise
from osmn.presets import COCO, DAVIS, YOUTUBE_VOS, GuideAugmentation, SampleSettings, TrainingSettings
from osmn.settings import OnlineSettings
from osmn.training import train
from vos_shared.errors import BadDataset, UserError
from vos_shared.runtime.distributed import fabric
from vos_shared.training.arguments import RunOptions

TINY = SampleSettings(size=(48, 64), scales=(1.0, 0.75), scale_value=0.00787)


def test_damaged_photographs_and_masks_of_another_size_are_named(stills: StillImages, tmp_path: Path) -> None:
    image, mask = stills.pairs[0]
    Image.new("L", (10, 10), 255).save(mask)
    with pytest.raises(BadDataset, match=r"0\.png.*70 wide.*10 wide"):
        stills.example(0, np.random.default_rng(0))
    image.write_bytes(image.read_bytes()[:200])
    for workers in (0, 1):
        settings = TrainingSettings(steps=2, batch_size=3)
        with pytest.raises(UserError, match=r"0\.png") as caught:
            train_tiny(stills, tmp_path / f"run{workers}", settings, workers=workers)
        assert "\n" not in str(caught.value)


def train_tiny(
    stills: Source, folder: Path, settings: TrainingSettings, *, resume: bool = False, workers: int = 0
) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model = initialise(OSMN(Architecture("lite", head_width=8)))
    ours = fabric("cpu")
    ours.launch()
    path = train(model, stills, TINY, settings, RunOptions(folder, resume, workers=workers), ours)
    assert path is not None
    return read_weights(path).model.state_dict()


def test_training_resumes_as_if_it_had_never_stopped(stills: StillImages, tmp_path: Path) -> None:
    settings = TrainingSettings(steps=4, batch_size=2, learning_rate=1e-3, drop_at=None, save_steps=2)
    whole = train_tiny(stills, tmp_path / "whole", settings)
    train_tiny(stills, tmp_path / "parts", replace(settings, steps=2))
    with pytest.raises(UserError, match="--resume"):
        train_tiny(stills, tmp_path / "parts", settings)
    with pytest.raises(UserError, match="seed 1234, not 5"):
        train_tiny(stills, tmp_path / "parts", replace(settings, seed=5), resume=True)
    parts = train_tiny(stills, tmp_path / "parts", settings, resume=True)
    assert all(torch.equal(value, parts[key]) for key, value in whole.items())


class Fragile:
    """Still images, one of which cannot be read while `broken`."""

    def __init__(self, stills: StillImages) -> None:
        self.stills, self.broken, self.reads = stills, True, 0

    def __len__(self) -> int:
        return len(self.stills)

    def example(self, index: int, rng: np.random.Generator) -> Example:
        self.reads += 1
        if self.broken and self.reads > 4:
            raise BadDataset("the fifth example is broken")
        return self.stills.example(index, rng)


def test_what_was_computed_before_a_bad_example_is_not_lost(stills: StillImages, tmp_path: Path) -> None:
    settings = TrainingSettings(steps=4, batch_size=2, learning_rate=1e-3)
    source = Fragile(stills)
    with pytest.raises(BadDataset, match="fifth example"):
        train_tiny(source, tmp_path / "run", settings)
    assert torch.load(tmp_path / "run" / "resume.pt")["step"] == 2
    source.broken = False
    resumed = train_tiny(source, tmp_path / "run", settings, resume=True)
    whole = train_tiny(stills, tmp_path / "whole", settings)
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())


@pytest.mark.parametrize(
    "option",
    [
        {"steps": 0},
        {"batch_size": 0},
        {"save_steps": 0},
        {"seed": -1},
        {"learning_rate": float("nan")},
        {"drop_at": 0},
    ],
)
def test_settings_that_cannot_be_carried_out_are_refused(option: dict[str, Any]) -> None:
    name = next(iter(option)).replace("_", "-")
    with pytest.raises(UserError, match=f"--{name} is "):
        TrainingSettings(**option)


def test_published_configurations() -> None:
    """Specification, sections 10 and 13."""
    (coco, coco_samples), (davis, davis_samples), (ytvos, ytvos_samples) = COCO, DAVIS, YOUTUBE_VOS
    assert (coco.steps, coco.batch_size, coco.learning_rate, coco.drop_at) == (300_000, 8, 1e-5, 200_000)
    assert (davis.steps, davis.batch_size, davis.learning_rate, davis.drop_at) == (50_000, 4, 1e-6, None)
    assert ytvos == coco
    assert (coco.fix_bn, davis.fix_bn) == (False, True)
    assert not any(run.fix_seg or run.fix_trunk_bn or run.fixed_seg_blocks for run in (coco, davis))
    assert (coco_samples.size, coco_samples.scales) == ((400, 400), (0.8, 1.0, 1.2))
    assert (davis_samples.size, davis_samples.scales) == ((480, 854), (0.5, 0.8, 1.0))
    assert (ytvos_samples.size, ytvos_samples.scales) == ((256, 448), (1.0,))
    for samples in (coco_samples, davis_samples, ytvos_samples):
        assert samples.augmentation == GuideAugmentation(0.1, False, 10.0, 0.2, 0.4, (0.8, 1.2), 0.2, False, True)
        assert samples.frame_crop_ratio == 0
    assert OnlineSettings() == OnlineSettings(100, 1e-5, (0.5, 0.8, 1.0), fix_bn=False, models=None)


def test_the_rate_falls_once_and_reaches_the_optimiser() -> None:
    settings = TrainingSettings()
    assert [settings.rate(step) for step in (0, 199_999, 200_000, 299_999)] == pytest.approx([1e-5, 1e-5, 1e-6, 1e-6])
    assert replace(settings, drop_at=None).rate(299_999) == 1e-5


def test_the_rate_of_each_step_reaches_the_optimiser(stills: StillImages, tmp_path: Path) -> None:
    settings = TrainingSettings(steps=40, batch_size=1, learning_rate=1e-3, drop_at=30)
    tiny = replace(TINY, size=(32, 64), scales=(1.0,))
    model = initialise(OSMN(Architecture("lite", head_width=8)))
    train(model, stills, tiny, settings, RunOptions(tmp_path), fabric("cpu"))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(line["step"], line["train/lr"]) for line in lines] == [(20, 1e-3), (40, pytest.approx(1e-4))]
    rates = [group["lr"] for group in torch.load(tmp_path / "resume.pt")["optimiser"]["param_groups"]]
    assert rates == [pytest.approx(1e-4)]


def test_dropout_is_the_same_after_a_stop(stills: StillImages, tmp_path: Path) -> None:
    def train_vgg(name: str, steps: int, *, resume: bool = False) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        model = initialise(OSMN(Architecture("deeplab", visual=False)))
        settings = TrainingSettings(steps=steps, batch_size=1, learning_rate=1e-3, drop_at=None)
        path = train(model, stills, TINY, settings, RunOptions(tmp_path / name, resume), fabric("cpu"))
        assert path is not None
        return read_weights(path).model.state_dict()

    whole = train_vgg("whole", 3)
    train_vgg("parts", 2)
    torch.rand(3)
    parts = train_vgg("parts", 3, resume=True)
    assert all(torch.equal(value, parts[key]) for key, value in whole.items())


def test_fixed_blocks_keep_their_start_values(stills: StillImages, tmp_path: Path) -> None:
    settings = TrainingSettings(steps=1, batch_size=2, learning_rate=1e-2, fix_trunk_bn=True,
                                fixed_seg_blocks=3, fixed_modulator_blocks=12)  # fmt: skip
    trained = train_tiny(stills, tmp_path / "run", settings)
    torch.manual_seed(0)
    start = initialise(OSMN(Architecture("lite", head_width=8))).state_dict()
    moved = {key for key, value in trained.items() if not torch.equal(value, start[key])}
    assert not {key for key in moved if "running" in key and "modulator_sp" not in key}
    for trunk, first in (("seg", 4), ("modulator", 13)):
        blocks = {int(key.split(".")[2]) + 1 for key in moved if key.startswith(f"{trunk}.blocks.")}
        assert blocks == set(range(first, 14))
        assert not {key for key in moved if key.startswith(f"{trunk}.stem")}
