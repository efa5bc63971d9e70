"""The pipeline: its stages, late objects, ids with gaps, kept networks, files in the official layouts."""

from __future__ import annotations

import os
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from spn_instances import learners
from spn_instances.checkpoints import load_weights, save_weights
from spn_instances.cli import main
from spn_instances.images import network_input
from spn_instances.inference import load
from spn_instances.learners import OnlineLearner
from spn_instances.losses import balanced_loss
from spn_instances.networks import Refinement, RefinementNet, ResNetF
from spn_instances.online import Examples, LateTuning, fine_tune
from spn_instances.settings import CODE, SMALL_INSTANCE, OnlineSettings
from spn_instances.stages import resized_ids
from spn_instances.territory import object_maps
from vos_shared.errors import UserError
from vos_shared.masks import read_mask
from vos_shared.testing import RunCommand
from vos_shared.video import Video

STAGES: list[dict[str, Any]] = [{}, {"spn": False}, {"craf": False}, {"foreground": False}, {"craf_rule": "paper"}]


def clip(frames: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Frames with a bright and a grey square on dark noise, and the first frame's object ids, 3 and 9."""
    video = np.random.default_rng(0).integers(0, 60, (frames, 48, 64, 3), dtype=np.uint8)
    ids = np.zeros((48, 64), np.uint8)
    for number, (value, object_id) in enumerate(((250, 3), (150, 9))):
        window = slice(10, 30), slice(5 + 30 * number, 25 + 30 * number)
        video[:, *window] = value
        ids[window] = object_id
    return video, ids


@pytest.mark.parametrize("options", STAGES)
def test_every_stage_can_be_left_out(
    foreground_weights: Path, refinement_weights: Path, options: dict[str, Any]
) -> None:
    frames, ids = clip()
    segmenter = load(foreground_weights, "cpu", spn_weights=refinement_weights, **options)
    assert segmenter.settings.craf_rule == options.get("craf_rule", "demo")
    first, *others = [segmenter.step(frame, ids if t == 0 else None).mask for t, frame in enumerate(frames)]
    np.testing.assert_array_equal(first, ids)
    for mask in others:
        assert set(np.unique(mask)) <= {0, 3, 9}


def test_without_fine_tuning_objects_share_the_foreground_around_them() -> None:
    _, ids = clip()
    foreground = np.full((48, 64), 0.8, np.float32)
    maps = object_maps(foreground, ids, [3, 9])
    assert (maps.sum(0) <= 0.8 + 1e-6).all(), "no pixel belongs to two objects"
    assert (maps[0][ids == 3] == np.float32(0.8)).all()
    assert maps[0][20, 28] == np.float32(0.8), "near object 3"
    assert maps[:, 47, 0].sum() == 0, "too far from both"
    assert not object_maps(foreground, np.zeros_like(ids), [3]).any()


def test_objects_may_appear_late(foreground_weights: Path, refinement_weights: Path) -> None:
    frames, ids = clip()
    segmenter = load(foreground_weights, "cpu", spn_weights=refinement_weights, online=True, steps=1)
    first = np.where(ids == 9, ids, 0).astype(np.uint8)
    np.testing.assert_array_equal(segmenter.step(frames[0], first).mask, first)
    np.testing.assert_array_equal(segmenter.step(frames[1], ids).mask == 3, ids == 3)
    last = segmenter.step(frames[2], soft_masks=True)
    assert set(np.unique(last.mask)) <= {0, 3, 9}
    assert last.soft_masks is not None
    assert last.soft_masks.shape == (9, 48, 64)


def bright_object() -> tuple[np.ndarray, np.ndarray]:
    """The first frame of the clip and the label of its bright square."""
    frames, ids = clip(1)
    return frames[0], (ids == 3).astype(np.uint8)


def test_fine_tuning_learns_the_object_and_leaves_the_parent_alone(tiny: ResNetF) -> None:
    frame, label = bright_object()
    before = {name: value.clone() for name, value in tiny.state_dict().items()}
    settings = OnlineSettings(steps=30, learning_rate=2e-6)
    tuned = fine_tune(tiny, Examples([(frame, label)]), settings)
    torch.testing.assert_close(dict(tiny.state_dict()), before)
    image, truth = network_input(frame)[None], torch.from_numpy(label > 0)[None]
    losses = [balanced_loss(network(image), truth)[0].item() for network in (tiny, tuned)]
    assert losses[1] < losses[0]
    again = fine_tune(tiny, Examples([(frame, label)]), settings)
    torch.testing.assert_close(tuned.state_dict(), again.state_dict(), rtol=0, atol=0)
    with pytest.raises(UserError, match="lower --learning-rate"):
        fine_tune(tiny, Examples([(frame, label)]), replace(settings, learning_rate=1e6))


def test_small_networks_have_a_solver_of_few_steps() -> None:
    small, official = (OnlineSettings().for_trunk(trunk) for trunk in ("mobilenet", "resnet"))
    assert (small.preset, small.fast, small.steps) == ("small", True, SMALL_INSTANCE.steps)
    assert (official.preset, official.fast, official.solver) == ("code", False, CODE)
    assert OnlineSettings(preset="code").for_trunk("mobilenet").solver == CODE
    assert OnlineSettings(steps=7).for_trunk("mobilenet").solver == replace(SMALL_INSTANCE, steps=7)


def test_the_shipped_weights_run_without_options() -> None:
    frames, ids = clip()
    segmenter = load(device="cpu")
    assert segmenter.info.trained
    np.testing.assert_array_equal(segmenter.step(frames[0], ids).mask, ids)
    assert set(np.unique(segmenter.step(frames[1]).mask)) <= {0, 3, 9}
    assert segmenter.settings.craf_rule == "paper"


@pytest.mark.parametrize("fast", [False, True])
def test_kept_networks_are_used_again(
    tiny: ResNetF, tmp_path: Path, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames, ids = clip(1)
    settings = OnlineSettings(steps=1, learning_rate=1e-7, models=tmp_path, fast=fast)
    networks = []
    for _ in range(2):
        learner = OnlineLearner(tiny, settings)
        learner.reset("clip")
        learner.learn(frames[0], ids, [3, 9])
        networks.append(learner.networks([9])[0].state_dict())
        monkeypatch.setattr(learners, "fine_tune", None)
        monkeypatch.setattr(LateTuning, "from_parent", None)
        monkeypatch.setattr(LateTuning, "from_foreground", None)
    torch.testing.assert_close(networks[0], networks[1])
    names = sorted(path.name.rpartition("-")[0] for path in (tmp_path / "clip").iterdir())
    assert names == ["foreground", "object-3", "object-9"]


def test_keeping_networks_needs_the_name_of_the_video(tiny: ResNetF, tmp_path: Path) -> None:
    frames, ids = clip(1)
    learner = OnlineLearner(tiny, OnlineSettings(steps=1, models=tmp_path))
    with pytest.raises(UserError, match="call prepare first"):
        learner.learn(frames[0], ids, [3])


def test_maps_are_written_in_the_official_layouts(
    foreground_weights: Path, refinement_weights: Path, tmp_path: Path
) -> None:
    frames, ids = clip()
    for number, frame in enumerate(frames):
        (tmp_path / "lions").mkdir(exist_ok=True)
        Image.fromarray(frame).save(tmp_path / "lions" / f"{number:05}.png")
    video = Video.open(tmp_path / "lions")
    segmenter = load(foreground_weights, "cpu", spn_weights=refinement_weights, intermediate=tmp_path / "maps")
    segmenter.prepare(video)
    for number, frame in enumerate(frames):
        segmenter.step(frame, ids if number == 0 else None)
    foreground = Image.open(tmp_path / "maps" / "fgbg" / "lions" / "00001.png")
    assert foreground.mode == "L"
    assert set(np.unique(np.asarray(foreground))) <= {0, 255}
    for stage in ("perobj", "spn"):
        assert {path.name for path in (tmp_path / "maps" / stage / "lions").iterdir()} == {
            f"0000{frame}_{object_id}.png" for frame in (1, 2) for object_id in (3, 9)
        }
        with Image.open(tmp_path / "maps" / stage / "lions" / "00002_9.png") as soft:
            assert (soft.mode, soft.size) == ("L", (64, 48))
    without = load(foreground_weights, "cpu", spn=False, intermediate=tmp_path / "without")
    without.prepare(video)
    for number, frame in enumerate(frames):
        without.step(frame, ids if number == 0 else None)
    assert {path.name for path in (tmp_path / "without").iterdir()} == {"fgbg", "perobj"}, "no stage, no map of it"


def test_foreground_masks_take_the_place_of_the_net(foreground_weights: Path, tmp_path: Path) -> None:
    frames, ids = clip()
    masks = tmp_path / "fgbg"
    for number, frame in enumerate(frames):
        for folder in (tmp_path / "lions", masks / "lions"):
            folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(frame).save(tmp_path / "lions" / f"{number:05}.png")
        Image.fromarray((ids == 9).astype(np.uint8) * np.uint8(255)).save(masks / "lions" / f"{number:05}.png")
    video = Video.open(tmp_path / "lions")
    segmenter = load(foreground_weights, "cpu", spn=False, craf=False, foreground_masks=masks)
    segmenter.prepare(video)
    segmenter.step(frames[0], ids)
    np.testing.assert_array_equal(segmenter.step(frames[1]).mask, np.where(ids == 9, 9, 0))

    Image.fromarray(np.zeros((10, 10), np.uint8)).save(masks / "lions" / "00002.png")
    with pytest.raises(UserError, match=r"00002.png is 10 wide and 10 high, its frame 64 wide and 48 high"):
        segmenter.step(frames[2])
    (masks / "lions" / "00001.png").unlink()
    with pytest.raises(UserError, match=r"1 of 3 frames have no foreground mask; the first one would be .*00001.png"):
        segmenter.prepare(video)
    with pytest.raises(UserError, match="is not a folder"):
        load(foreground_weights, "cpu", spn=False, foreground_masks=tmp_path / "absent")


def test_options_of_fine_tuning_need_the_variant(foreground_weights: Path) -> None:
    with pytest.raises(UserError, match=r"steps belong to fine-tuning; take variant spn-instances\+online"):
        load(foreground_weights, "cpu", steps=3)


def test_trained_networks_and_fine_tuning_exclude_each_other(foreground_weights: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="leave one out"):
        load(foreground_weights, "cpu", online=True, networks=tmp_path)


def test_a_refinement_network_of_many_classes_is_refused(foreground_weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "voc.safetensors"
    save_weights(path, RefinementNet(Refinement(21, width=2, channels=2)), {})
    with pytest.raises(UserError, match=r"voc\.safetensors refines 21 classes"):
        load(foreground_weights, "cpu", spn_weights=path)


def test_trained_networks_are_found_by_the_name_of_the_video(
    run_command: RunCommand, davis: Path, tmp_path: Path, foreground_weights: Path, refinement_weights: Path
) -> None:
    networks = tmp_path / "networks"
    common = ["--weights", foreground_weights, "--device", "cpu"]
    segment = ["segment", davis, *common, "--spn-weights", refinement_weights, "--networks", networks]
    networks.mkdir()
    lacking = run_command(main, "spn-instances", *segment, "--output", tmp_path / "masks")
    assert lacking.code == 2
    assert "make it with spn-instances train object" in lacking.stderr
    training = ["--output", networks, "--steps", 1, "--workers", 0]
    assert run_command(main, "spn-instances", "train", "object", davis, *common, *training).code == 0
    outcome = run_command(main, "spn-instances", *segment, "--output", tmp_path / "masks")
    assert outcome.code == 0, outcome.stderr
    masks = sorted((tmp_path / "masks").glob("*/*.png"))
    assert len(masks) == 4
    assert set(np.unique(read_mask(masks[-1]))) <= {0, 1, 2}


def test_the_ablation_prints_the_papers_table(
    run_command: RunCommand, davis: Path, tmp_path: Path, foreground_weights: Path, refinement_weights: Path
) -> None:
    other = tmp_path / "out" / "networks" / "another" / "object-1-0.safetensors"
    other.parent.mkdir(parents=True)
    other.write_bytes(foreground_weights.read_bytes())
    outcome = run_command(
        main, "spn-instances", "ablation", davis, "--weights", foreground_weights, "--device", "cpu",
        "--output", tmp_path / "out", "--spn-weights", refinement_weights, "--variant", "spn-instances+online",
        "--steps", 1,
    )  # fmt: skip
    assert outcome.code == 0, outcome.stderr
    *table, time = outcome.stdout.splitlines()[-8:]
    assert table[0].split() == ["Global", "J", "mean", "J", "recall", "F", "mean", "F", "recall"]
    assert [line.partition("  ")[0] for line in table[2:]] == [
        "full",
        "without CRAF",
        "without CRAF, SPN",
        "without CRAF, SPN, foreground tuning",
        "without CRAF, SPN, object tuning",
    ]
    assert time.startswith("fine-tuning: 3 networks, ")
    assert (tmp_path / "out" / "without-CRAF-SPN").is_dir()


def test_the_rows_of_the_ablation_decide_about_its_stages(run_command: RunCommand, davis: Path, tmp_path: Path) -> None:
    words = ["ablation", davis, "--device", "cpu", "--output", tmp_path / "out"]
    for option, message in (("--no-craf", "leave out --no-craf"), ("--fast", "--fast needs --variant")):
        refused = run_command(main, "spn-instances", *words, option)
        assert refused.code == 2
        assert message in refused.stderr


def test_a_real_video_goes_through_all_stages(run_command: RunCommand, tmp_path: Path) -> None:
    if "VOS_DATA" not in os.environ:
        pytest.skip("VOS_DATA names no folder of real data")
    data = Path(os.environ["VOS_DATA"], "davis2017-val-open")
    frames = sorted((data / "JPEGImages").glob("*/bmx-trees/0000[0-2].*"))
    prompt = next((data / "Annotations").glob("*/bmx-trees/00000.png"))
    assert len(frames) == 3
    (tmp_path / "bmx-trees").mkdir()
    for frame in frames:
        shutil.copy(frame, tmp_path / "bmx-trees")
    outcome = run_command(
        main, "spn-instances", "finetune", tmp_path / "bmx-trees", "--prompt", prompt, "--device", "cpu",
        "--output", tmp_path / "masks", "--intermediate", tmp_path / "maps", "--steps", 2, "--fast-samples", 2,
        "--shorter-side", 96, "--spn-shorter-side", 96,
    )  # fmt: skip
    assert outcome.code == 0, outcome.stderr
    with Image.open(prompt) as truth:
        size, ids = truth.size, set(np.unique(np.asarray(truth)))
    paths = sorted((tmp_path / "masks" / "bmx-trees").iterdir())
    for path in paths:
        with Image.open(path) as mask:
            assert (mask.mode, mask.size) == ("P", size)
    first, *others = map(read_mask, paths)
    np.testing.assert_array_equal(first, read_mask(prompt))
    assert len(others) == 2
    assert set(np.unique(others)) <= ids
    written = {path.relative_to(tmp_path / "maps").parts[0] for path in (tmp_path / "maps").rglob("*.png")}
    assert written == {"fgbg", "perobj", "spn"}


def test_weights_go_to_caffe_and_back(run_command: RunCommand, tmp_path: Path, foreground_weights: Path) -> None:
    caffe, ours = tmp_path / "x.caffemodel", tmp_path / "x.safetensors"
    for source, target in ((foreground_weights, caffe), (caffe, ours)):
        outcome = run_command(main, "spn-instances", "import-weights", source, target)
        assert outcome.code == 0, outcome.stderr
    before, after = (load_weights(path, ResNetF).model.state_dict() for path in (foreground_weights, ours))
    torch.testing.assert_close(after, before)
    wrong = run_command(main, "spn-instances", "import-weights", caffe, ours, "--upsamplers")
    assert wrong.code == 2
    assert "--upsamplers is for .caffemodel files" in wrong.stderr
    refused = run_command(main, "spn-instances", "import-weights", caffe, ours, "--network", "refinement")
    assert refused.code == 2
    assert "not of spn-instances refinement" in refused.stderr


def test_networks_may_see_smaller_frames_and_keep_tiny_objects(
    foreground_weights: Path, refinement_weights: Path
) -> None:
    frames, ids = clip()
    ids[40, 60] = 5  # One pixel, which plain resizing to half the size loses.
    options: dict[str, Any] = {"spn_weights": refinement_weights, "shorter_side": 24, "online": True, "steps": 1}
    segmenter = load(foreground_weights, "cpu", **options)
    np.testing.assert_array_equal(segmenter.step(frames[0], ids).mask, ids)
    assert segmenter.step(frames[1]).mask.shape == (48, 64)
    assert isinstance(segmenter.learner, OnlineLearner)
    assert sorted(segmenter.learner.objects) == [3, 5, 9]
    assert set(np.unique(resized_ids(ids, (24, 32)))) == {0, 3, 5, 9}


def test_networks_that_are_finished_are_kept_when_a_later_one_fails(
    tiny: ResNetF, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames, ids = clip(1)
    calls: list[int] = []

    def fails_at_the_third(model: ResNetF, examples: Examples, settings: OnlineSettings) -> ResNetF:
        calls.append(len(examples))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return fine_tune(model, examples, settings)

    monkeypatch.setattr(learners, "fine_tune", fails_at_the_third)
    for killed in (True, False):
        learner = OnlineLearner(tiny, OnlineSettings(steps=1, learning_rate=1e-7, models=tmp_path))
        learner.reset("clip")
        with pytest.raises(KeyboardInterrupt) if killed else nullcontext():
            learner.learn(frames[0], ids, [3, 9])
    assert len(calls) == 4, "only the last network is trained again"
