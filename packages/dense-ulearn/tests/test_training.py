"""The training loop on tiny clips: output, resume, refusals. Crops of 32 pixels are 4 x 4 cells."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]
from torch import Tensor, nn

from dense_ulearn.augmentation import ClipViews, Views
from dense_ulearn.checkpoints import load_weights
from dense_ulearn.data import ClipDataset
from dense_ulearn.inference import DenseSegmenter, NetworkFeatures
from dense_ulearn.losses import Losses
from dense_ulearn.networks import DenseNetwork
from dense_ulearn.objective import Objective
from dense_ulearn.objective import load_weights as load_into
from dense_ulearn.presets import (
    Augmentation,
    ObjectiveSettings,
    Optimisation,
    Sampling,
    TrainingSettings,
)
from dense_ulearn.settings import InferenceSettings
from dense_ulearn.training import train
from dense_ulearn.validation import Measured, Validation
from vos_shared.datasets import davis2017
from vos_shared.datasets.synthetic import write_davis_tree
from vos_shared.errors import BadMask, BadVideo, BadWeights, UserError
from vos_shared.method import ModelInfo
from vos_shared.runtime.distributed import fabric as make_fabric
from vos_shared.training.arguments import RunOptions
from vos_shared.video import Video

TINY = TrainingSettings(
    batch=2,
    epochs=1,
    clips_per_video=2,
    seed=5,
    augmentation=Augmentation(crop=32, shorter_side=(32, 48)),
    objective=ObjectiveSettings(grid=4, reference_grid=2),
    optimisation=Optimisation("adam", 1e-3, 5e-4, "step", step_epochs=1, gamma=0.5),
)
"""Two epochs of two steps."""


@pytest.fixture(scope="module")
def clips() -> ClipDataset:
    noise = np.random.default_rng(0).integers(0, 256, (2, 6, 40, 56, 3), np.uint8)
    return ClipDataset([Video.open(frames) for frames in noise], TINY.sampling, TINY.augmentation, TINY.seed)


def run_to_end(
    clips: ClipDataset,
    folder: Path,
    settings: TrainingSettings = TINY,
    precision: str = "fp32",
    *,
    resume: bool = False,
    device: str = "cpu",
) -> dict[str, Tensor]:
    fabric = make_fabric(device, precision)
    last = train(settings, clips, RunOptions(folder, resume, minutes=0), fabric)
    assert last is not None
    return load_weights(last).state


def logged(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def assert_same(state: dict[str, Tensor], run: Path) -> None:
    for name, value in load_weights(run / "last.safetensors").state.items():
        assert torch.equal(state[name], value), name


@pytest.fixture(scope="module")
def whole(clips: ClipDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without interruption."""
    folder = tmp_path_factory.mktemp("whole")
    run_to_end(clips, folder)
    return folder


def test_a_run_trains_and_says_so(whole: Path) -> None:
    before = load_weights("untrained").state
    after = load_weights(whole / "last.safetensors")
    assert not torch.equal(after.state["fast_net.backbone.conv1.weight"], before["fast_net.backbone.conv1.weight"])
    # The gradient-free pass also updates BatchNorm: two passes in each of four steps.
    assert after.state["fast_net.backbone.bn1.num_batches_tracked"] == 8
    assert after.metadata["step"] == "4"
    assert [line["step"] for line in logged(whole)] == [2, 4]
    assert [line["train/lr"] for line in logged(whole)] == [1e-3, 5e-4]
    assert any((whole / "tensorboard").iterdir())


@pytest.mark.parametrize("stop", [1, 3])
def test_a_broken_run_goes_on_as_if_nothing_had_been(
    clips: ClipDataset, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    losses = Objective.__call__

    def failing(objective: Objective, views: Views[Tensor], step: int) -> Losses:
        if step == stop:
            raise KeyboardInterrupt
        return losses(objective, views, step)

    with monkeypatch.context() as patch:
        patch.setattr(Objective, "__call__", failing)
        with pytest.raises(KeyboardInterrupt):
            run_to_end(clips, tmp_path)
    torch.rand(3)  # Random numbers drawn in between must not matter.
    resumed = run_to_end(clips, tmp_path, resume=True)
    assert_same(resumed, whole)
    assert logged(tmp_path) == logged(whole)


def test_a_finished_run_can_be_made_longer(clips: ClipDataset, whole: Path, tmp_path: Path) -> None:
    run_to_end(clips, tmp_path, replace(TINY, epochs=0))
    longer = run_to_end(clips, tmp_path, resume=True)
    name = "fast_net.emb_q.conv2.weight"
    assert torch.equal(longer[name], load_weights(whole / "last.safetensors").state[name])


class Unreadable(ClipDataset):
    """Clips of which one cannot be read, as when a disk is not mounted for a while."""

    missing = -1

    def __getitem__(self, key: tuple[int, int]) -> ClipViews:
        self.missing -= 1
        if self.missing == 0:
            raise BadVideo("frame 7 cannot be read")
        return super().__getitem__(key)


@pytest.mark.parametrize(("steps", "clip"), [(0, 1), (3, 8)])
def test_what_was_computed_before_a_bad_frame_is_not_lost(
    clips: ClipDataset, whole: Path, tmp_path: Path, steps: int, clip: int
) -> None:
    fragile = Unreadable(clips.videos, clips.sampling, clips.augmentation, clips.seed)
    fragile.missing = clip
    run = RunOptions(tmp_path, minutes=60)
    with pytest.raises(BadVideo, match="frame 7"):
        train(TINY, fragile, run, make_fabric("cpu"))
    assert torch.load(tmp_path / "resume.pt")["step"] == steps
    resumed = run_to_end(clips, tmp_path, resume=True)
    assert all(
        torch.equal(resumed[name], value) for name, value in load_weights(whole / "last.safetensors").state.items()
    )
    assert logged(tmp_path) == logged(whole)


def test_a_validation_that_fails_loses_no_step(
    clips: ClipDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_davis_tree(tmp_path / "davis", clips=1, frames=6, size=(64, 80), objects=1)
    validation = Validation.checked(davis2017(tmp_path / "davis", "val"))

    def unreadable(*_: object) -> object:
        raise BadMask("mask 3 cannot be read")

    monkeypatch.setattr(Validation, "segmentation", unreadable)
    run = RunOptions(tmp_path / "run", minutes=60)
    with pytest.raises(BadMask, match="mask 3"):
        train(TINY, clips, run, make_fabric("cpu"), validation=validation)
    assert torch.load(run.folder / "resume.pt")["step"] == 2
    monkeypatch.undo()
    other = Validation(davis2017(tmp_path / "davis", "val") * 2)
    with pytest.raises(UserError, match="written with validation on"):
        train(TINY, clips, replace(run, resume=True), make_fabric("cpu"), validation=other)


def test_a_run_goes_on_as_it_began(clips: ClipDataset, whole: Path) -> None:
    fewer = ClipDataset(clips.videos[:1], clips.sampling, clips.augmentation, clips.seed)
    with pytest.raises(UserError, match="number of videos 2, not 1"):
        run_to_end(fewer, whole, resume=True)
    with pytest.raises(UserError, match="batch 2, not 1"):
        run_to_end(clips, whole, replace(TINY, batch=1), resume=True)
    with pytest.raises(UserError, match="precision 32-true, not bf16-mixed"):
        run_to_end(clips, whole, precision="bf16", resume=True)
    frames = np.zeros((6, 40, 56, 3), np.uint8)
    videos = [Video.open(frames, name=name) for name in ("others", "again")]
    other = ClipDataset(videos, clips.sampling, clips.augmentation, clips.seed)
    with pytest.raises(UserError, match="written with videos"):
        run_to_end(other, whole, resume=True)


def test_mixed_precision_stays_close(clips: ClipDataset, tmp_path: Path, whole: Path, device: torch.device) -> None:
    run_to_end(clips, tmp_path, precision="bf16", device=str(device))
    found, expected = logged(tmp_path)[0]["train/main"], logged(whole)[0]["train/main"]
    assert found != expected
    assert found == pytest.approx(expected, rel=0.05)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_gpu_trains_and_goes_on(clips: ClipDataset, tmp_path: Path, whole: Path, precision: str) -> None:
    run_to_end(clips, tmp_path, precision=precision, device="cuda")
    assert logged(tmp_path)[0]["train/main"] == pytest.approx(logged(whole)[0]["train/main"], rel=0.05)
    run_to_end(clips, tmp_path, replace(TINY, epochs=2), precision, resume=True, device="cuda")
    assert [line["step"] for line in logged(tmp_path)] == [2, 4, 6]


def test_block_bn_leaves_the_statistics_to_the_pass_with_gradient(clips: ClipDataset, tmp_path: Path) -> None:
    state = run_to_end(clips, tmp_path, replace(TINY, epochs=0, block_bn=True))
    assert state["fast_net.backbone.bn1.num_batches_tracked"] == 2


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(BadWeights, match="another network"):
        load_into(DenseNetwork(), nn.Linear(2, 2).state_dict())


def test_validation_scores_both_layers_and_keeps_the_best(clips: ClipDataset, tmp_path: Path) -> None:
    write_davis_tree(tmp_path / "davis", clips=1, frames=6, size=(64, 80), objects=1)
    validation = Validation(davis2017(tmp_path / "davis", "val"))
    run = RunOptions(tmp_path / "run", minutes=0)
    train(TINY, clips, run, make_fabric("cpu"), validation=validation, keep=1)
    measured = [line for line in logged(run.folder) if "val/main" in line]
    assert [line["epoch"] for line in measured] == [0, 1]
    pictures = EventAccumulator(str(run.folder / "tensorboard"), {"images": 0}).Reload().Tags()["images"]
    name = validation.sequences[0].name
    assert set(pictures) == {"train", "val/clips", f"val/key/{name}", f"val/res4/{name}"}
    scores = [max(line["val/key/J&F-Mean"], line["val/res4/J&F-Mean"]) for line in measured]
    kept = json.loads((run.folder / "best" / "scores.json").read_text())
    assert [score for _, score in kept] == [max(scores)]
    assert [path.name for path in (run.folder / "best").glob("*.safetensors")] == [kept[0][0]]


def test_a_resumed_run_must_beat_the_best_score_that_it_knows_and_no_other(
    clips: ClipDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed run may have kept snapshots of steps that the resumed run repeats."""
    write_davis_tree(tmp_path / "davis", clips=1, frames=6, size=(64, 80), objects=1)
    validation = Validation(davis2017(tmp_path / "davis", "val"))
    run = RunOptions(tmp_path / "run", minutes=60)
    listed, scores = run.folder / "best" / "scores.json", iter([0.5, 0.7])
    monkeypatch.setattr(Validation, "measure", lambda *_: Measured({}, {}, "key", next(scores)))
    train(replace(TINY, epochs=0), clips, run, make_fabric("cpu"), validation=validation)
    first = json.loads(listed.read_text())
    listed.write_text(json.dumps([*first, ["of the killed run", 0.9]]))
    train(TINY, clips, replace(run, resume=True), make_fabric("cpu"), validation=validation)
    assert [score for _, score in json.loads(listed.read_text())] == [0.5, 0.7]


def test_anchors_change_from_step_to_step_and_are_those_of_the_step() -> None:
    objective = Objective(TINY, make_fabric("cpu"))
    first, again, next_ones = (torch.stack([*objective.draw_offsets(8, step)]) for step in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, next_ones)


def test_validation_measures_as_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Running statistics, permuted clips with a gap of 2, the temperature of the training, both layers."""
    write_davis_tree(tmp_path, clips=1, frames=6, size=(64, 80), objects=1)
    validation = Validation(davis2017(tmp_path, "val"))
    losses = replace(TINY.objective, temperature=0.2)
    settings = replace(TINY, objective=losses, sampling=Sampling(gap=10, ordered=True))
    objective = Objective(settings, make_fabric("cpu"))
    sampled, propagated = [], []

    class Clips(ClipDataset):
        def __init__(self, videos: list[Video], sampling: Sampling, *rest: Any) -> None:
            sampled.append(sampling)
            super().__init__(videos, sampling, *rest)

    class Segmenter(DenseSegmenter):
        def __init__(self, features: NetworkFeatures, info: ModelInfo, settings: InferenceSettings) -> None:
            propagated.append((features.layer, settings.layer, settings.temperature))
            super().__init__(features, info, settings)

    monkeypatch.setattr("dense_ulearn.validation.ClipDataset", Clips)
    monkeypatch.setattr("dense_ulearn.validation.DenseSegmenter", Segmenter)
    before = {name: value.clone() for name, value in objective.network.state_dict().items()}
    validation.measure(objective)
    assert all(torch.equal(value, before[name]) for name, value in objective.network.state_dict().items())
    assert sampled == [Sampling(gap=2)]
    assert propagated == [("key", "key", 0.2), ("res4", "res4", 0.2)]
