"""Scores of EvalSeg-Net by the command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from unsup_fg.checkpoints import save_weights
from unsup_fg.cli import main
from unsup_fg.networks import build
from unsup_fg.settings import Architecture
from vos_shared.testing import Outcome, RunCommand

EVALSEG = Architecture("evalseg", 1 / 64)


@pytest.fixture
def score(run_command: RunCommand, tmp_path: Path) -> Any:
    def run(*arguments: object) -> Outcome:
        given = ("score", tmp_path / "images", tmp_path / "masks", "--output", tmp_path / "good.txt")
        return run_command(main, "unsup-fg", *given, "--device", "cpu", *arguments)

    return run


@pytest.fixture
def pictures(tmp_path: Path) -> dict[str, tuple[Any, Any]]:
    """Frames and soft masks of the network's own size, by name, as files too."""
    random, found = np.random.default_rng(0), {}
    for index in range(18):  # More than a batch.
        name = f"clip/{index:03d}"
        frame, mask = random.integers(0, 256, (128, 128, 3), np.uint8), random.integers(0, 256, (128, 128), np.uint8)
        found[f"{name}.png"] = frame, mask
        for folder, picture in (("images", frame), ("masks", mask)):
            path = tmp_path / folder / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)
    return found


def test_scores_are_those_of_the_network(score: Any, pictures: dict[str, tuple[Any, Any]], tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build(EVALSEG).eval()
    save_weights(tmp_path / "w.safetensors", network, EVALSEG, {})
    expected = {}
    with torch.inference_mode():
        for name, (frame, mask) in pictures.items():
            image = torch.from_numpy(frame).permute(2, 0, 1)[None] / 255
            expected[name] = network(image, torch.from_numpy(mask)[None, None] / 255).item()
    threshold = float(np.median(list(expected.values())))
    outcome = score("--weights", tmp_path / "w.safetensors", "--threshold", threshold)
    assert outcome.code == 0, outcome.stderr
    lines = [line.split(";") for line in (tmp_path / "good.txt").read_text().splitlines()]
    assert [name for name, _ in lines] == [name for name, value in expected.items() if value >= threshold]
    for name, value in lines:
        assert float(value) == pytest.approx(expected[name], rel=1e-4, abs=1e-6)


def test_the_weights_that_come_with_the_package_score(score: Any, pictures: dict[str, Any], tmp_path: Path) -> None:
    outcome = score("--threshold", -1000)
    assert outcome.code == 0, outcome.stderr
    assert len((tmp_path / "good.txt").read_text().splitlines()) == len(pictures)


def test_bad_input_is_one_line(score: Any, pictures: dict[str, tuple[Any, Any]], tmp_path: Path) -> None:
    architecture = Architecture("lowres", 1 / 64)
    save_weights(tmp_path / "w.safetensors", build(architecture), architecture, {})
    cases = {"give weights of evalseg": score("--weights", tmp_path / "w.safetensors")}
    (tmp_path / "images" / "clip" / "003.png").unlink()
    cases["003.png has no image"] = score("--weights", tmp_path / "w.safetensors")
    for message, outcome in cases.items():
        assert outcome.code == 2
        assert message in outcome.stderr
        assert outcome.stderr.count("\n") == 1
    assert not (tmp_path / "good.txt").exists()


@pytest.mark.parametrize(("metadata", "shown", "listed"), [({}, "80", 0), ({"score_threshold": "-1e9"}, "-1e+09", 18)])
def test_weights_say_from_which_score_on_a_mask_is_good(
    score: Any,
    pictures: dict[str, tuple[Any, Any]],
    tmp_path: Path,
    metadata: dict[str, str],
    shown: str,
    listed: int,
) -> None:
    torch.manual_seed(0)
    save_weights(tmp_path / "w.safetensors", build(EVALSEG).eval(), EVALSEG, metadata)
    outcome = score("--weights", tmp_path / "w.safetensors")
    assert f"{listed} of {len(pictures)} masks reach {shown}:" in outcome.stdout
