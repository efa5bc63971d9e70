"""The recipes of the shipped weights: the methods' own command lines accept every option of theirs."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tyro
from PIL import Image

import train_demo_weights
from train_demo_weights import (
    HELD_OUT,
    TrainAmdObjectness,
    TrainDenseUlearn,
    TrainOsmn,
    TrainSpnInstances,
    TrainUnsupFg,
    training_folders,
)
from vos_shared.masks import write_mask

TRAINED = ("bear", "bus")


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    """DAVIS-2016 train with the sequences that are held out and two others, a frame each."""
    root = tmp_path / "DAVIS"
    for name in (*HELD_OUT, *TRAINED):
        frames, masks = (root / kind / "240p" / name for kind in ("JPEGImages", "Annotations"))
        frames.mkdir(parents=True)
        masks.mkdir(parents=True)
        Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(frames / "00000.jpg")
        write_mask(masks / "00000.png", np.ones((16, 16), np.uint8))
    lists = root / "ImageSets" / "2016"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("\n".join((*HELD_OUT, *TRAINED)))
    return root


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that a recipe would run, in order; none is run."""
    found: list[list[str]] = []

    def record(command: list[str]) -> int:
        found.append([Path(command[0]).name, *command[1:]])
        return 0

    monkeypatch.setattr(train_demo_weights, "_patient_call", record)
    return found


def parsed(command: list[str], monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the console script of a method makes of a command line."""
    prog, *words = command
    (script,) = entry_points(group="console_scripts", name=prog)
    main = script.load()
    made: list[Any] = []

    def parse(_prog: str, _description: str, commands: Mapping[str, Any]) -> None:
        made.append(tyro.extras.subcommand_cli_from_dict(dict(commands), args=words, prog=prog))

    monkeypatch.setitem(main.__globals__, "run_commands", parse)
    main()
    return made


def test_every_recipe_is_a_command_line_of_its_method(
    davis: Path, calls: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_demo_weights, "write_synthetic", lambda folder, _clips=0: folder)
    images, mobilenet = tmp_path / "images", tmp_path / "mobilenet.npz"
    recipes: dict[str, Any] = {
        "dense-ulearn": TrainDenseUlearn(videos=tmp_path, davis=davis, output=tmp_path / "d"),
        "osmn": TrainOsmn(images=images, davis=davis, mobilenet=mobilenet, output=tmp_path / "o"),
        "amd-objectness": TrainAmdObjectness(videos=tmp_path, davis=davis, output=tmp_path / "a"),
        "spn-instances": TrainSpnInstances(images=images, davis=davis, mobilenet=mobilenet, output=tmp_path / "s"),
        "unsup-fg": TrainUnsupFg(videos=tmp_path, davis=davis, output=tmp_path / "u"),
    }
    for method, recipe in recipes.items():
        calls.clear()
        assert recipe.run() == 0
        commands = [command for command in calls if command[0] == method]
        assert commands
        for command in commands:
            assert parsed(command, monkeypatch)
            assert str(tmp_path) in " ".join(command)


def test_a_recipe_goes_on_where_it_was_stopped(davis: Path, calls: list[list[str]], tmp_path: Path) -> None:
    recipe = TrainSpnInstances(images=tmp_path, davis=davis, mobilenet=tmp_path, output=tmp_path)
    (tmp_path / "parent").mkdir()
    (tmp_path / "parent" / "resume.pt").touch()
    recipe.run()
    assert ["--resume" in command for command in calls] == [True, False]


def test_held_out_sequences_are_not_trained_on(davis: Path, calls: list[list[str]], tmp_path: Path) -> None:
    assert [folder.name for folder in training_folders(davis)] == list(TRAINED)
    TrainSpnInstances(images=tmp_path, davis=davis, mobilenet=tmp_path, output=tmp_path).run()
    assert set(HELD_OUT) < set(calls[0])
