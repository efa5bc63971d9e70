"""Fast fine-tuning: early layers are shared, and objects start from the foreground's network."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from spn_instances.augmentation import Draw, augment, augment_label
from spn_instances.images import network_input
from spn_instances.learners import OnlineLearner
from spn_instances.losses import balanced_loss
from spn_instances.networks import ResNetF
from spn_instances.online import LateTuning
from spn_instances.settings import CODE, OFFICIAL_SIZE, OnlineSettings, SampleSettings

RATE = 1e-6
SETTINGS = OnlineSettings(preset="code", steps=5, learning_rate=RATE, fast=True, fast_samples=3)
SIZE = (48, 64)


def clip() -> tuple[np.ndarray, np.ndarray]:
    """A frame with a bright and a grey square, objects 3 and 9, on noise."""
    frame = np.random.default_rng(0).integers(0, 60, (*SIZE, 3), dtype=np.uint8)
    ids = np.zeros(SIZE, np.uint8)
    for number, (value, object_id) in enumerate(((250, 3), (150, 9))):
        window = slice(10, 30), slice(5 + 30 * number, 25 + 30 * number)
        frame[window] = value
        ids[window] = object_id
    return frame, ids


@torch.inference_mode()  # As in the segmenter.
def learned(
    parent: ResNetF, settings: OnlineSettings, ids: np.ndarray, new: Sequence[int] = (3, 9), video: str = "clip"
) -> OnlineLearner:
    learner = OnlineLearner(parent, settings)
    learner.reset(video)
    learner.learn(clip()[0], ids, new)
    return learner


def values(network: ResNetF) -> dict[str, torch.Tensor]:
    return dict(network.state_dict())


def assert_same(found: ResNetF, expected: ResNetF) -> None:
    torch.testing.assert_close(values(found), values(expected), rtol=0, atol=0)


def differ(one: ResNetF, other: ResNetF) -> bool:
    return any(not torch.equal(value, values(other)[name]) for name, value in values(one).items())


def plainly_tuned(start: ResNetF, label: np.ndarray, steps: int) -> ResNetF:
    """Caffe's solver on whole images, with the early layers frozen."""
    tuned = copy.deepcopy(start).requires_grad_(True)
    for layer in tuned.trunk.early_layers():
        layer.requires_grad_(False)
    rng, rate = np.random.default_rng([CODE.seed, 5]), RATE * OFFICIAL_SIZE[0] * OFFICIAL_SIZE[1] / (48 * 64)
    draws = [Draw.sample(rng, SampleSettings(size=None), SIZE) for _ in range(3)]
    speeds: dict[str, torch.Tensor] = {}
    for step in range(steps):
        draw = draws[step % 3]
        scores = tuned(network_input(augment(clip()[0], draw, SIZE))[None])
        loss = balanced_loss(scores, torch.from_numpy(augment_label(label, draw, SIZE) > 0)[None])[0]
        weights = {name: value for name, value in tuned.named_parameters() if value.requires_grad}
        for (name, value), slope in zip(weights.items(), torch.autograd.grad(loss, [*weights.values()]), strict=True):
            is_bias = name in ("head.feat08.bias", "head.score08.bias")
            slope += 0 if is_bias else 5e-4 * value.detach()
            speeds[name] = 0.99 * speeds.get(name, torch.zeros(())) + slope
            value.data -= (2 if is_bias else 1) * rate * speeds[name]
    return tuned.requires_grad_(False)


def test_objects_take_a_third_of_the_steps_from_the_foreground_on(tiny: ResNetF) -> None:
    _, ids = clip()
    learner = learned(tiny, SETTINGS, ids)
    foreground = plainly_tuned(tiny, ids > 0, 5)
    torch.testing.assert_close(values(learner.foreground), values(foreground), rtol=1e-4, atol=1e-6)
    for object_id, network in learner.objects.items():
        label = ids == object_id
        expected = plainly_tuned(foreground, label, 2)
        torch.testing.assert_close(values(network), values(expected), rtol=1e-4, atol=1e-6)
        for start, steps in ((tiny, 2), (foreground, 1), (foreground, 3)):
            wrong = plainly_tuned(start, label, steps)
            with pytest.raises(AssertionError):
                torch.testing.assert_close(values(network), values(wrong), rtol=1e-4, atol=1e-6)


def test_objects_take_all_steps_from_the_parent_where_the_foreground_is_not_tuned(tiny: ResNetF) -> None:
    frame, ids = clip()
    learner = learned(tiny, replace(SETTINGS, tune_foreground=False), ids)
    assert learner.foreground is tiny
    label = (ids == 9).astype(np.uint8)
    assert_same(learner.objects[9], LateTuning(tiny, frame, SETTINGS).from_parent(label))


def test_the_solver_of_objects() -> None:
    steps = {steps: OnlineSettings(steps=steps, fast=True).object_solver.steps for steps in (None, 60, 5, 1)}
    assert steps == {None: 10_000, 60: 20, 5: 2, 1: 1}
    small = OnlineSettings(preset="small", steps=60, learning_rate=1e-3).object_solver
    assert [small.rate(step) for step in (0, 10)] == pytest.approx([1e-3, 5e-4])


def test_late_layers_move_and_early_ones_are_shared(tiny: ResNetF) -> None:
    learner = learned(tiny, SETTINGS, clip()[1])
    networks = [tiny, learner.foreground, *learner.networks([3, 9])]
    for network in networks[1:]:
        assert all(map(operator.is_, network.trunk.early_layers(), tiny.trunk.early_layers()))
    for name in ("trunk.res4.0.branch2a.conv.weight", "head.score08.weight"):
        assert len({network.get_parameter(name).detach().numpy().tobytes() for network in networks}) == 4


@pytest.mark.parametrize("fast", [True, False])
def test_a_videos_only_object_is_its_foreground(tiny: ResNetF, tmp_path: Path, fast: bool) -> None:
    _, ids = clip()
    only = np.where(ids == 3, ids, 0)
    settings = replace(SETTINGS, fast=fast, steps=2, models=tmp_path)
    learner = learned(tiny, settings, only, [3])
    assert learner.objects[3] is learner.foreground
    assert {path.name.rpartition("-")[0] for path in (tmp_path / "clip").iterdir()} == {"foreground", "object-3"}
    alone = replace(settings, tune_foreground=False, models=None)
    assert_same(learned(tiny, alone, only, [3]).objects[3], learner.objects[3])
    again = learned(tiny, settings, only, [3])
    assert again.objects[3] is again.foreground, "kept networks are shared as well"
    assert_same(again.foreground, learner.foreground)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The networks that are fine-tuned and not read, in order: parent or foreground, by where they start."""
    calls: list[str] = []

    def counted(name: str) -> None:
        original: Callable[..., ResNetF] = getattr(LateTuning, f"from_{name}")

        def call(tuning: LateTuning, *arguments: Any) -> ResNetF:
            calls.append(name)
            return original(tuning, *arguments)

        monkeypatch.setattr(LateTuning, f"from_{name}", call)

    counted("parent")
    counted("foreground")
    return calls


def test_a_run_killed_after_the_foreground_ends_with_the_same_networks(
    tiny: ResNetF, tmp_path: Path, made: list[str]
) -> None:
    _, ids = clip()
    settings = replace(SETTINGS, models=tmp_path)
    whole = learned(tiny, settings, ids)
    assert made == ["parent", "foreground", "foreground"]
    for path in (tmp_path / "clip").glob("object-*"):
        path.unlink()
    resumed = learned(tiny, settings, ids)
    assert made[3:] == ["foreground", "foreground"]
    complete = learned(tiny, settings, ids)
    assert len(made) == 5, "all are kept"
    for learner in (resumed, complete):
        assert_same(learner.foreground, whole.foreground)
        for object_id in (3, 9):
            assert_same(learner.objects[object_id], whole.objects[object_id])


def test_another_objects_mask_changes_an_objects_origin(tiny: ResNetF, tmp_path: Path, made: list[str]) -> None:
    _, ids = clip()
    moved = np.where(ids == 9, 0, ids)
    moved[32:45, 40:60] = 9
    settings = replace(SETTINGS, models=tmp_path)
    first, second = (learned(tiny, settings, masks) for masks in (ids, moved))
    assert made == ["parent", "foreground", "foreground"] * 2
    assert differ(first.objects[3], second.objects[3]), "its start differs"
    assert_same(second.objects[3], learned(tiny, SETTINGS, moved).objects[3])
    made.clear()
    alone = replace(settings, tune_foreground=False)
    first, second = (learned(tiny, alone, masks) for masks in (ids, moved))
    assert made == ["parent"] * 3, "object 3 depends on nothing else, object 9 does"
    assert_same(first.objects[3], second.objects[3])


def test_a_late_object_starts_from_the_foreground_of_its_frame(tiny: ResNetF) -> None:
    frame, ids = clip()
    learner = learned(tiny, SETTINGS, np.where(ids == 3, ids, 0), [3])
    learner.learn(frame[:, ::-1].copy(), ids[:, ::-1].copy(), [9])
    tuning = LateTuning(tiny, frame[:, ::-1].copy(), SETTINGS)
    assert_same(learner.foreground, tuning.from_parent((ids[:, ::-1] > 0).astype(np.uint8)))
    label = (ids[:, ::-1] == 9).astype(np.uint8)
    assert_same(learner.objects[9], tuning.from_foreground(learner.foreground, label))
