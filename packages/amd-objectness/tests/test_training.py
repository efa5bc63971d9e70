"""Training on tiny clips: files of a run, resuming, the report of a collapse, and several processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]
from torch import Tensor, nn

from amd_objectness.adaptation import adapt
from amd_objectness.checkpoints import load_weights, untrained
from amd_objectness.collapse import SHARE, STEPS, CollapseWatch
from amd_objectness.losses import Losses, Objective
from amd_objectness.presets import Sampling, TrainingSettings
from amd_objectness.settings import AdaptationSettings, Architecture
from amd_objectness.training import train
from vos_shared.checkpoints import safetensors_io
from vos_shared.errors import UserError
from vos_shared.layers import quick_convolutions, winograd
from vos_shared.layers.sync_batch_norm import SyncBatchNorm2d, synchronise_batch_norms
from vos_shared.runtime.distributed import fabric as make_fabric
from vos_shared.training.arguments import RunOptions
from vos_shared.video import Video

SMALL = Architecture("resnet18", motion_size=(64, 64))
TINY = TrainingSettings(batch=1, steps=3, picture_steps=3, seed=5, sampling=Sampling(shorter_side=40, crop=32))


@pytest.fixture(scope="module")
def videos() -> list[Video]:
    noise = np.random.default_rng(0).integers(0, 256, (2, 4, 40, 48, 3), np.uint8)
    return [Video.open(frames, name=name) for frames, name in zip(noise, "ab", strict=True)]


def run_to_end(
    videos: list[Video],
    folder: Path,
    settings: TrainingSettings = TINY,
    precision: str = "fp32",
    *,
    resume: bool = False,
    device: str = "cpu",
) -> dict[str, Tensor]:
    model = untrained(SMALL, settings.seed).network()
    options = RunOptions(folder, resume, minutes=60, data="noise")
    last = train(model, videos, settings, options, make_fabric(device, precision))
    assert last is not None
    return load_weights(last).state


def logged(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


@pytest.fixture(scope="module")
def whole(videos: list[Video], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("amd_objectness.training.LOG_STEPS", 1)
        run_to_end(videos, folder)
    return folder


def test_a_run_writes_weights_log_and_pictures(whole: Path) -> None:
    before, after = untrained(SMALL, TINY.seed), load_weights(whole / "last.safetensors")
    for name in ("backbone2.conv1.weight", "decode_head2.conv_seg.bias", "decode_head.flownet.conv_1x1.0.0.weight"):
        assert not torch.equal(after.state[name], before.state[name]), name
    assert after.state["backbone2.bn1.num_batches_tracked"] == 3
    assert (after.architecture, after.trained) == (SMALL, True)
    assert (after.description, after.metadata["shorter_side"]) == ("trained on noise, 3 steps", "39")
    lines = logged(whole)
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert [line["train/lr"] for line in lines] == pytest.approx([1.000e-4, 6.973e-5, 3.783e-5], rel=1e-3)
    shares = [[line[f"share/segment_{index}"] for index in range(1, 6)] for line in lines]
    assert [sum(share) for share in shares] == pytest.approx([1, 1, 1])
    events = EventAccumulator(str(whole / "tensorboard"), {"images": 0}).Reload()
    assert events.Tags()["images"] == ["train"]
    assert (events.Images("train")[0].height, events.Images("train")[0].width) == (2 * 32, 6 * 32)


def test_a_resumed_run_equals_an_uninterrupted_one(
    videos: list[Video], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amd_objectness.training.LOG_STEPS", 1)
    forward, calls = Objective.forward, []

    def failing(objective: Objective, pairs: Tensor, *, pixels: bool) -> Losses:
        calls.append(1)
        if len(calls) == 2:
            raise UserError("stopped here")
        return forward(objective, pairs, pixels=pixels)

    with monkeypatch.context() as patch:
        patch.setattr(Objective, "forward", failing)
        model = untrained(SMALL, TINY.seed).network()
        with pytest.raises(UserError, match="stopped here"):
            train(model, videos, TINY, RunOptions(tmp_path, minutes=0, data="noise"), make_fabric("cpu"))
    assert torch.load(tmp_path / "resume.pt")["step"] == 1
    torch.rand(3)  # Random numbers that are drawn in between must not matter.
    resumed = run_to_end(videos, tmp_path, resume=True)
    for name, value in load_weights(whole / "last.safetensors").state.items():
        assert torch.equal(resumed[name], value), name
    assert logged(tmp_path) == logged(whole)
    with pytest.raises(UserError, match="batch 1, not 2"):
        run_to_end(videos, tmp_path, replace(TINY, batch=2), resume=True)
    with pytest.raises(UserError, match="number of videos 2, not 1"):
        run_to_end(videos[:1], tmp_path, resume=True)


def test_training_on_equal_frames_keeps_the_weights_finite(tmp_path: Path) -> None:
    still = [Video.open(np.full((3, 40, 40, 3), 90, np.uint8), name="grey")]
    state = run_to_end(still, tmp_path, replace(TINY, steps=2))
    assert all(bool(value.isfinite().all()) for value in state.values())


def test_mixed_precision_trains(videos: list[Video], tmp_path: Path, device: torch.device) -> None:
    name = "backbone2.conv1.weight"
    trained = run_to_end(videos, tmp_path, replace(TINY, steps=1), "bf16", device=str(device))[name]
    assert trained.dtype == torch.float32
    assert trained.isfinite().all()
    assert not torch.equal(trained, untrained(SMALL, TINY.seed).state[name])


def test_the_motion_network_learns_alone_at_first(videos: list[Video], tmp_path: Path) -> None:
    """In its first steps weight decay does not move the appearance network either; then both networks learn."""
    start = untrained(SMALL, TINY.seed).state
    for steps, appearance_moves in ((2, False), (3, True)):
        state = run_to_end(videos, tmp_path / str(steps), replace(TINY, steps=steps, flow_steps=2))
        moved = {name for name, value in start.items() if not torch.equal(state[name], value)}
        assert any(".flownet." in name for name in moved)
        assert any(name.startswith("backbone2.") for name in moved) == appearance_moves
        assert ("decode_head2.conv_seg.weight" in moved) == appearance_moves


@pytest.mark.parametrize("adapted", [False, True])
def test_wide_convolutions_are_computed_quickly(
    adapted: bool, videos: list[Video], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wide ones of 3x3 without stride: 11 in the trunk, more in the head and in the motion network."""
    monkeypatch.setattr(quick_convolutions, "LEAST_PIXELS", 0)
    quick = Mock(wraps=winograd.trained_convolve)
    monkeypatch.setattr(quick_convolutions, "trained_convolve", quick)
    if adapted:
        settings = AdaptationSettings(iterations=1, pairs=1)
        adapt(untrained(SMALL).network(), videos, settings, TINY.sampling, torch.device("cpu"))
    else:
        run_to_end(videos, tmp_path, replace(TINY, steps=1, picture_steps=100))
    assert quick.call_count > 11


def test_a_collapse_is_reported_once() -> None:
    watch, collapsed, fair = CollapseWatch(), torch.tensor([0.0, 0.0, 0.99, 0.01, 0.0]), torch.full((5,), 0.2)
    for _ in range(STEPS - 1):
        watch.step(collapsed)
    assert watch.message() is None
    resumed = CollapseWatch()
    resumed.load_state_dict(watch.state_dict())
    resumed.step(collapsed)
    assert resumed.message() == f"collapse: segment 3 has held more than {SHARE:.0%} of the pixels for 500 steps"
    resumed.step(collapsed)
    assert resumed.message() is None
    resumed.step(fair)
    assert resumed.message() is None
    for _ in range(STEPS):
        resumed.step(collapsed)
    assert resumed.message() is not None


def test_a_collapse_is_written_to_the_log(
    videos: list[Video], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("amd_objectness.training.LOG_STEPS", 1)
    monkeypatch.setattr("amd_objectness.collapse.STEPS", 2)
    monkeypatch.setattr("amd_objectness.collapse.SHARE", 0.1)
    run_to_end(videos, tmp_path)
    messages = [line["message"] for line in logged(tmp_path) if "message" in line]
    assert len(messages) == 1
    assert str(messages[0]).startswith("collapse: segment")
    assert "collapse: segment" in capsys.readouterr().err


def test_synchronised_batch_norms_of_one_process_give_the_same_values() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    other = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    other.load_state_dict(plain.state_dict())
    synchronise_batch_norms(other)
    assert isinstance(other[1], SyncBatchNorm2d)
    images = torch.rand(2, 3, 5, 5)
    assert torch.equal(plain(images), other(images))
    assert plain.state_dict().keys() == other.state_dict().keys()


RANK = """
import sys
from pathlib import Path
import numpy as np
import torch
import amd_objectness.training as training
from amd_objectness.checkpoints import untrained
from amd_objectness.presets import Sampling, TrainingSettings
from amd_objectness.networks import SegmentHead
from amd_objectness.settings import Architecture
from torch import nn
from vos_shared.layers import quick_convolutions
from vos_shared.runtime.distributed import fabric, world_size
from vos_shared.training.arguments import RunOptions
from vos_shared.video import Video

training.LOG_STEPS = 1
quick_convolutions.LEAST_PIXELS = 0  # Small maps are convolved as large ones are.
noise = np.random.default_rng(0).integers(0, 256, (2, 4, 40, 48, 3), np.uint8)
videos = [Video.open(frames, name=name) for frames, name in zip(noise, "ab")]
settings = TrainingSettings(batch=2 // world_size(), steps=2, sampling=Sampling(shorter_side=40, crop=32))
model = untrained(Architecture("resnet18", motion_size=(64, 64))).network()
torch.manual_seed(0)
model.backbone2 = nn.Sequential(nn.Conv2d(3, 8, 8, 8), nn.BatchNorm2d(8))  # A small one, for speed.
model.decode_head2 = SegmentHead(8)
model.decode_head2.dropout.p = 0  # Each process draws its own.
lightning = fabric("cpu", devices=world_size())
lightning.launch()
training.train(model, videos, settings, RunOptions(Path(sys.argv[1]), minutes=60), lightning)
"""


def run_ranks(folder: Path, count: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(server.getsockname()[1]), "WORLD_SIZE": str(count)}
    common = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"} | (group if count > 1 else {})
    own = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} if count > 1 else {} for rank in range(count)]
    command = [sys.executable, "-c", RANK, str(folder)]
    running = [subprocess.Popen(command, env=common | environment) for environment in own]
    assert [process.wait(timeout=300) for process in running] == [0] * count


def test_two_processes_equal_one_with_the_double_batch(tmp_path: Path) -> None:
    """Batch statistics and the mean of the visible pixels are those of all processes together."""
    run_ranks(tmp_path / "one", 1)
    run_ranks(tmp_path / "two", 2)
    for alone, shared in zip(logged(tmp_path / "one"), logged(tmp_path / "two"), strict=True):
        assert shared == pytest.approx(alone, rel=2e-5)
    one, two = (safetensors_io.load(tmp_path / name / "last.safetensors")[0] for name in ("one", "two"))
    for name, value in one.items():
        if "running" in name:
            torch.testing.assert_close(two[name], value, atol=1e-4, rtol=1e-3)
        elif value.is_floating_point():  # Adam moves by its rate whichever sign a gradient near zero has.
            assert (two[name] - value).abs().max() <= 4.1e-4
            assert (two[name] - value).abs().mean() < 2e-5, name
