"""Training: the loss falls, a resumed run equals an uninterrupted one, and the solvers are Caffe's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from PIL import Image

from spn_instances.checkpoints import load_weights, save_weights
from spn_instances.cli import main
from spn_instances.data import Example, TrainingSamples
from spn_instances.networks import Refinement, RefinementNet, ResNetF
from spn_instances.settings import CODE, SMALL, RefinementSettings, SampleSettings, SolverSettings
from spn_instances.training import optimiser_of, rate_for, train
from spn_instances.training_refinement import optimiser_of as refinement_optimiser
from vos_shared.errors import UserError
from vos_shared.testing import RunCommand
from vos_shared.training.arguments import RunOptions
from vos_shared.training.optimisers import set_rate


def bright_square() -> Example:
    """A frame whose object differs from the background by its brightness, and its label."""
    frame, label = np.full((48, 64, 3), 60, np.uint8), np.zeros((48, 64), np.uint8)
    frame[8:32, 16:48], label[8:32, 16:48] = 220, 1
    return frame, label


@pytest.fixture
def fabric() -> Fabric:
    made = Fabric(accelerator="cpu", devices=1)
    made.launch()
    return made


def test_the_loss_falls(tiny: ResNetF, tmp_path: Path, fabric: Fabric) -> None:
    samples = TrainingSamples([bright_square()], SampleSettings(size=None), 0)
    solver = SolverSettings(steps=40, learning_rate=2e-6, momentum=0.9)
    last = train(tiny, samples, solver, RunOptions(tmp_path / "run"), fabric)
    assert last is not None
    lines = (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    first, second = (json.loads(line)["train/balanced"] for line in lines)
    assert second < first
    assert load_weights(last, ResNetF).metadata["steps"] == "40"


def test_the_solver_is_caffes(tiny: ResNetF) -> None:
    optimiser = optimiser_of(tiny, CODE)
    set_rate(optimiser, rate_for(torch.zeros(1, 3, 480, 854), CODE, 0))
    assert rate_for(torch.zeros(1, 3, 240, 427), CODE, 0) == pytest.approx(4e-10)
    others, biases = optimiser.param_groups
    assert (others["lr"], others["weight_decay"], others["momentum"]) == (1e-10, 5e-4, 0.99)
    assert (biases["lr"], biases["weight_decay"]) == (2e-10, 0)
    assert {id(value) for value in biases["params"]} == {id(tiny.head.feat08.bias), id(tiny.head.score08.bias)}
    assert SolverSettings(learning_rate=1e-8, halve_every=10_000).rate(20_000) == 0.25e-8


def test_the_rate_of_our_solver_falls_to_zero_and_is_lower_for_the_trunk(tiny: ResNetF) -> None:
    optimiser = optimiser_of(tiny, SMALL)
    assert isinstance(optimiser, torch.optim.AdamW)
    for size in ((480, 854), (24, 32)):
        assert rate_for(torch.zeros(1, 3, *size), SMALL, SMALL.steps // 2) == SMALL.learning_rate / 2
    set_rate(optimiser, 1e-3)
    trunk, head = optimiser.param_groups
    assert trunk["lr"] == pytest.approx(0.1 * head["lr"])
    assert {id(value) for value in head["params"]} == {id(value) for value in tiny.head.parameters()}
    tiny.trunk.requires_grad_(False)
    assert len(optimiser_of(tiny, SMALL).param_groups) == 1


def test_the_refinement_networks_solver_is_caffes(tiny_refinement: RefinementNet) -> None:
    optimiser = refinement_optimiser(tiny_refinement, RefinementSettings())
    names = [name for name, _ in tiny_refinement.named_parameters()]
    found = dict(zip(names, (group["multiplier"] for group in optimiser.param_groups), strict=True))
    assert found["guidance.conv3_2.weight"] == pytest.approx(0.1)
    assert found["rnn_conv1.bias"] == pytest.approx(0.2)
    assert found["guidance.guide_conv2.bias"] == 2
    assert found["guidance.edge_conv7.bias"] == 1
    assert found["deconv0.weight"] == 1
    ours = refinement_optimiser(tiny_refinement, RefinementSettings(rule="adamw"))
    assert [group["multiplier"] for group in ours.param_groups] == [1]


def test_a_resumed_run_of_the_parent_equals_an_uninterrupted_one(
    run_command: RunCommand, tmp_path: Path, davis: Path, foreground_weights: Path
) -> None:
    common = ["train", "parent", "--root", davis, "--split", "val", "--start", foreground_weights,
              "--device", "cpu", "--workers", 0, "--size", 48, 64, "--learning-rate", 1e-7]  # fmt: skip
    whole = run_command(main, "spn-instances", *common, "--output", tmp_path / "whole", "--steps", 4)
    assert whole.code == 0, whole.stderr
    for steps, extra in ((2, []), (4, ["--resume"])):
        part = run_command(main, "spn-instances", *common, "--output", tmp_path / "parts", "--steps", steps, *extra)
        assert part.code == 0, part.stderr
    one, two = (load_weights(tmp_path / run / "last.safetensors", ResNetF).model for run in ("whole", "parts"))
    torch.testing.assert_close(one.state_dict(), two.state_dict(), rtol=0, atol=0)
    again = run_command(main, "spn-instances", *common, "--output", tmp_path / "whole", "--steps", 4)
    assert again.code == 2
    assert "already holds a run" in again.stderr


def test_all_objects_of_a_video_are_learned_in_one_run(
    run_command: RunCommand, tmp_path: Path, davis: Path, foreground_weights: Path
) -> None:
    arguments = ["--weights", foreground_weights, "--output", tmp_path / "runs", "--steps", 1, "--device", "cpu",
                 "--workers", 0]  # fmt: skip
    for stage in ("object", "foreground"):
        extra = ["--resume"] if stage == "foreground" else []
        outcome = run_command(main, "spn-instances", "train", stage, davis, *arguments, *extra)
        assert outcome.code == 0, outcome.stderr
    found = sorted(str(path.parent.relative_to(tmp_path / "runs")) for path in (tmp_path / "runs").rglob("last.*"))
    sequence = found[0].partition("/")[0]
    assert {f"{sequence}/foreground", f"{sequence}/object-1", f"{sequence}/object-2"} == set(found)
    absent = run_command(main, "spn-instances", "train", "object", davis, *arguments, "--resume", "--objects", 9)
    assert absent.code == 2
    assert "has no object 9" in absent.stderr


def test_the_refinement_network_is_trained_on_a_folder(run_command: RunCommand, tmp_path: Path) -> None:
    for folder, content in zip(("images", "masks"), bright_square(), strict=True):
        (tmp_path / folder).mkdir()
        Image.fromarray(content).save(tmp_path / folder / "a.png")
    outcome = run_command(
        main, "spn-instances", "train", "spn", "--images", tmp_path, "--output", tmp_path / "run", "--start", "random",
        "--width", 2, "--channels", 2, "--steps", 2, "--crop", 32, "--batch-size", 2, "--device", "cpu", "--workers", 0,
    )  # fmt: skip
    assert outcome.code == 0, outcome.stderr
    assert load_weights(tmp_path / "run" / "last.safetensors", RefinementNet).model.architecture.width == 2


def test_options_that_do_not_fit_each_other_are_refused(run_command: RunCommand, tmp_path: Path, davis: Path) -> None:
    three_classes = tmp_path / "three.safetensors"
    save_weights(three_classes, RefinementNet(Refinement(3, width=2, channels=2)), {})
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    for folder in ("images", "masks"):
        Image.fromarray(np.ones((40, 40), np.uint8)).save(tmp_path / folder / "a.png")
    for words, message in (
        (("parent", "--root", davis, "--pairs", tmp_path / "list.txt", "--exclude", "a"), "leave out --sequences"),
        (("spn", "--images", tmp_path, "--start", three_classes), "is for 3 classes"),
    ):
        refused = run_command(
            main, "spn-instances", "train", *words, "--output", tmp_path / "run", "--device", "cpu", "--workers", 0
        )
        assert refused.code == 2
        assert message in refused.stderr


@pytest.mark.parametrize("settings", [RefinementSettings, SolverSettings])
@pytest.mark.parametrize(("name", "value"), [("momentum", -1), ("momentum", 1), ("weight_decay", -1), ("seed", 2**63)])
def test_values_that_no_solver_takes_are_refused(settings: type, name: str, value: float) -> None:
    with pytest.raises(UserError, match=f"--{name.replace('_', '-')} is {value}"):
        settings(**{name: value})
