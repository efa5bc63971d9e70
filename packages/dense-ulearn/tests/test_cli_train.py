"""Bad input of the train command: one clear line each."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

from dense_ulearn.cli import main
from dense_ulearn.cli_train import TrainOnVideos
from vos_shared.datasets.synthetic import write_davis_tree


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "custom", "--videos", "nowhere"], "nowhere does not exist"),
        (["train", "custom", "--videos", "short"], "none of the 1 videos can be used: short (4 frames"),
        (["train", "custom", "--videos", "small"], "small (20x20, smaller than the crop of 256)"),
        (["train", "ytvos", "--root", ".", "--list", "empty.txt"], "empty.txt is empty"),
        (["train", "ytvos", "--root", ".", "--list", "missing.txt"], "1 of them are not there: gone/1.jpg"),
        (["train", "custom", "--videos", "no*where"], "nothing matches no*where"),
        (["train", "custom", "--videos", "small", "--weights", "empty.txt", "--resume"], "leave one of them out"),
        (["train", "custom", "--videos", "small", "--resume"], "run holds no run to resume (resume.pt)"),
        (["train", "custom", "--videos", "small", "--minutes=nan"], "--minutes is nan"),
        (["train", "custom", "--videos", "small", f"--seed={2**63}"], "--seed is 9223372036854775808"),
        (["train", "custom", "--videos", "empty.txt"], "empty.txt"),
        (["train", "ytvos", "--ordered", "--root", ".", "--list", "missing.txt"], "names 1 frames"),
        (["train", "kinetics", "--no-ordered", "--root", ".", "--list", "missing.txt"], "names 1 folders"),
        (["train", "custom", "--videos", "small", "--validation", "davis", "--validation-split", "val"], "has 2 masks"),
        (["train", "custom", "--videos", "small", "--sync-bn"], "--sync-bn works on CUDA devices only"),
        (["train", "custom", "--videos", "small", "--keep=0"], "--keep is 0"),
        (["train", "custom", "--videos", "short", "--weights", "empty.txt"], "empty.txt"),
        (["train", "custom", "--videos", "small", "--output", "empty.txt"], "empty.txt is a file"),
        (["train", "custom", "--videos", "small", "--crop=16", "--shorter-side", "16", "20"], "8x8 grid"),
        (
            ["train", "custom", "--videos", "small", "--crop=64", "--shorter-side", "40", "50"],
            "less than the crop of 64",
        ),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    for name, count in (("short", 4), ("small", 5)):
        (tmp_path / name).mkdir()
        for index in range(count):
            Image.new("RGB", (20, 20)).save(tmp_path / name / f"{index}.png")
    write_davis_tree(tmp_path / "davis", clips=1, frames=2, size=(16, 16), objects=1)
    (tmp_path / "empty.txt").touch()
    (tmp_path / "missing.txt").write_text("gone/1.jpg\n")
    monkeypatch.chdir(tmp_path)
    arguments = [*arguments[:2], "--output=run", "--device=cpu", "--workers=0", *arguments[2:]]
    monkeypatch.setattr(sys, "argv", ["dense-ulearn", *arguments])
    with pytest.raises(SystemExit, match="2"):
        main()
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("dense-ulearn: ")]
    assert len(lines) == 1
    assert words in lines[0]


def test_a_tree_of_davis_2016_serves_for_validation(tmp_path: Path) -> None:
    write_davis_tree(tmp_path, clips=2, frames=5, size=(48, 64))
    shutil.rmtree(tmp_path / "ImageSets" / "2017")
    settings = TrainOnVideos(output=tmp_path / "run", videos=(), validation=tmp_path, validation_split="val")
    assert [sequence.binary for sequence in settings._validation().sequences] == [True, True]


def test_a_run_that_was_asked_to_stop_is_not_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_davis_tree(tmp_path, clips=2, frames=5, size=(64, 80))
    monkeypatch.setattr("dense_ulearn.training.train", lambda *_, **__: None)
    words = ["train", "custom", "--videos", tmp_path / "JPEGImages" / "64p", "--output", tmp_path / "run"]
    settings = ["--crop", 64, "--shorter-side", 64, 64, "--batch", 2, "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["dense-ulearn", *map(str, words + settings)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    assert "continue with --resume" in capsys.readouterr().out
