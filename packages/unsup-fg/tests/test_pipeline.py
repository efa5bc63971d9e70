"""From a clip to a student by the commands: videopca, select, records, train, segment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from unsup_fg.agreement import consensus
from unsup_fg.cli import main
from unsup_fg.records import Records
from unsup_fg.selection import is_centre_ellipse, mask_score, read_selection
from vos_shared.testing import Outcome, RunCommand


@pytest.fixture
def unsup_fg(run_command: RunCommand) -> Any:
    def run(*arguments: object) -> Outcome:
        return run_command(main, "unsup-fg", *map(str, arguments))

    return run


@pytest.fixture
def clip(moving_disc: tuple[npt.NDArray[Any], npt.NDArray[Any]], tmp_path: Path) -> Path:
    folder = tmp_path / "disc"
    folder.mkdir()
    for number, frame in enumerate(moving_disc[0]):
        Image.fromarray(frame).save(folder / f"{number:05d}.png")
    return folder


def test_from_a_clip_to_a_student(unsup_fg: Any, clip: Path, tmp_path: Path) -> None:
    soft, selection, records = tmp_path / "soft", tmp_path / "selection.json", tmp_path / "records"
    assert unsup_fg("videopca", clip, "--soft", soft, "--size", 64, "--device", "cpu").code == 0
    outcome = unsup_fg("select", soft, "--output", selection, "--top", 0.3)
    assert outcome.code == 0
    assert "6 of 20 masks kept" in outcome.stdout
    (chosen,) = read_selection(selection)
    scores = {}
    for path in soft.glob("disc/*.png"):
        with Image.open(path) as image:
            scores[f"disc/{path.name}"] = mask_score(np.array(image))
    best = sorted(scores, key=lambda name: (-scores[name], name))[:6]
    assert [item.mask for item in chosen.kept] == best
    assert unsup_fg("records", clip, "--selection", selection, "--output", records, "--shards", 3).code == 0
    assert len(list(records.iterdir())) == 3
    written = Records(records)
    assert sorted(written.student(index).name for index in range(6)) == sorted(best)
    run = tmp_path / "run"
    student = ("train", "lowres", records, "--output", run, "--steps", 2, "--batch", 2)
    options = ("--width", 1 / 64, "--device", "cpu", "--workers", 0)
    assert unsup_fg(*student, *options).code == 0
    weights = run / "last.safetensors"
    outcome = unsup_fg("segment", clip, "--weights", weights, "--output", tmp_path / "masks", "--device", "cpu")
    assert outcome.code == 0, outcome.stderr
    assert len(list((tmp_path / "masks" / "disc").glob("*.png"))) == 20
    assert unsup_fg("import-weights", weights, tmp_path / "half.safetensors", "--half").code == 0


def test_bad_input_is_one_line(unsup_fg: Any, clip: Path, tmp_path: Path) -> None:
    soft, selection = tmp_path / "soft", tmp_path / "selection.json"
    (soft / "other").mkdir(parents=True)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(soft / "other" / "00000.png")
    empty = unsup_fg("select", soft, "--output", selection)
    Image.fromarray(np.full((8, 8), 9, np.uint8)).save(soft / "other" / "00001.png")
    assert unsup_fg("select", soft, "--output", selection).code == 0
    assert json.loads(selection.read_text())["sets"][0]["empty"] == 1
    records = ("records", clip, "--output", tmp_path / "records", "--selection")
    (tmp_path / "text.json").write_text("[" * 100_000)
    cases = {
        "are empty": empty,
        "has no soft masks": unsup_fg("select", clip, "--output", selection),
        "--top is 3": unsup_fg("select", soft, "--output", selection, "--top", 3),
        "1 of 1 selected masks have no frame here": unsup_fg(*records, selection),
        "not a selection": unsup_fg(*records, tmp_path / "text.json"),
        "no TFRecord shards": unsup_fg("train", "lowres", clip, "--output", tmp_path / "run", "--device", "cpu"),
        "no weights file": unsup_fg("segment", clip, "--output", tmp_path / "masks", "--weights", "nowhere"),
        "needs several networks": unsup_fg("segment", clip, "--output", tmp_path / "m", "--variant", "unsup-fg+multi"),
    }
    for message, outcome in cases.items():
        assert outcome.code == 2, message
        assert message in outcome.stderr
        assert outcome.stderr.count("\n") == 1
    assert not (tmp_path / "records").exists() or not list((tmp_path / "records").iterdir())


@pytest.mark.parametrize("colour", [0, 255])
def test_frames_of_one_colour_are_not_selected(unsup_fg: Any, clip: Path, tmp_path: Path, colour: int) -> None:
    """VideoPCA gives them the highest score: an ellipse around the centre, as the steps of the method have it."""
    for path in clip.glob("*.png"):
        with Image.open(path) as image:
            pixels = np.array(image)
        disc = pixels[..., 0] > 150
        pixels[disc] = pixels[disc][:, :1] % 20  # It is dark grey now, so black is likely foreground.
        Image.fromarray(pixels).save(path)
    for number in range(20, 23):
        Image.new("RGB", (96, 72), (colour,) * 3).save(clip / f"{number:05d}.png")
    soft, selection = tmp_path / "soft", tmp_path / "selection.json"
    assert unsup_fg("videopca", clip, "--soft", soft, "--size", 64, "--device", "cpu").code == 0
    with Image.open(soft / "disc" / "00021.png") as image:
        ellipse = np.array(image)
    assert mask_score(ellipse) == 255
    assert is_centre_ellipse(ellipse)
    assert not is_centre_ellipse(np.roll(ellipse, 8, axis=1))
    assert not is_centre_ellipse(np.zeros_like(ellipse))
    student = np.full((8, 8), 90, np.uint8)
    assert not consensus(ellipse, [student]).any()
    assert consensus(np.roll(ellipse, 8, axis=1), [student]).any()
    outcome = unsup_fg("select", soft, "--output", selection, "--top", 1)
    assert "20 of 23 masks kept, 3 show no object" in outcome.stdout
    (chosen,) = read_selection(selection)
    assert max(item.score for item in chosen.kept) < 255
