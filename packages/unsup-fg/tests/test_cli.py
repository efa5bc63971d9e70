"""The unsup-fg command."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from unsup_fg.cli import main
from unsup_fg.inference import video_soft_masks
from unsup_fg.videopca import VideoPCASettings
from vos_shared.masks import read_mask
from vos_shared.video import Video

Run = Callable[..., int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    def run_with(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["unsup-fg", "videopca", *map(str, arguments), "--device", "cpu"])
        with pytest.raises(SystemExit) as ended:
            main()
        assert isinstance(ended.value.code, int)
        return ended.value.code

    return run_with


def write_frames(frames: npt.NDArray[Any], folder: Path) -> Path:
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{number:05d}.png")
    return folder


@pytest.fixture
def folder(moving_disc: tuple[npt.NDArray[Any], npt.NDArray[Any]], tmp_path: Path) -> Path:
    """A folder of 20 frames."""
    return write_frames(moving_disc[0], tmp_path / "disc")


def test_object_masks_soft_masks_overlay_and_times(run: Run, folder: Path, tmp_path: Path) -> None:
    masks, soft, times = tmp_path / "masks", tmp_path / "soft", tmp_path / "times.json"
    assert run(folder, "--output", masks, "--soft", soft, "--size", 64, "--overlay", "--timing", times) == 0
    assert len(Video.open(masks / "disc.mp4")) == 20
    assert json.loads(times.read_text())["sequences"]["disc"]["frames"] == 20
    expected = video_soft_masks(Video.open(folder), VideoPCASettings(size=64))
    for number, soft_mask in enumerate(expected):
        with Image.open(soft / "disc" / f"{number:05d}.png") as image:
            assert image.mode == "L"
            np.testing.assert_array_equal(np.array(image), soft_mask)
        mask = read_mask(masks / "disc" / f"{number:05d}.png")
        assert mask.shape == (72, 96)
        assert mask.max() <= 1


def test_soft_masks_of_the_frames_own_size(run: Run, folder: Path, tmp_path: Path) -> None:
    assert run(folder, "--soft", tmp_path / "soft", "--size", 0) == 0
    with Image.open(tmp_path / "soft" / "disc" / "00000.png") as image:
        assert image.size == (96, 72)


def test_what_is_finished_is_not_redone(run: Run, folder: Path, tmp_path: Path) -> None:
    """Finished videos are skipped unless the settings change."""
    arguments = (folder, "--output", tmp_path / "masks", "--size", 32)
    assert run(*arguments) == 0
    mask = tmp_path / "masks" / "disc" / "00010.png"
    before = mask.stat().st_mtime_ns
    assert run(*arguments) == 0
    assert mask.stat().st_mtime_ns == before
    assert run(*arguments, "--threshold", 0.7) == 0
    assert mask.stat().st_mtime_ns != before


def test_short_shots_of_a_data_set_are_left_out(
    run: Run,
    moving_disc: tuple[npt.NDArray[Any], npt.NDArray[Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root, output = tmp_path / "root", tmp_path / "masks"
    for name, frames in {"long": 12, "short": 9}.items():
        write_frames(moving_disc[0][:frames], root / "JPEGImages" / "480p" / name)
        write_frames(np.zeros((frames, 72, 96), np.uint8), root / "Annotations" / "480p" / name)
    split = root / "ImageSets" / "2017" / "val.txt"
    split.parent.mkdir(parents=True)
    split.write_text("long\nshort\n")
    for image in (root / "JPEGImages").rglob("*.png"):
        image.rename(image.with_suffix(".jpg"))
    assert run(root, "--output", output, "--size", 32) == 0
    assert "short is left out: 9 frames" in capsys.readouterr().out
    assert (output / "long" / "00011.png").exists()
    assert not (output / "short").exists()


def test_one_kind_of_masks_does_not_replace_the_other(
    run: Run, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, size = tmp_path / "one", ("--size", 32)
    for soft in (one, one / folder.name / "soft"):
        assert run(folder, "--output", one, "--soft", soft, *size) == 2
        assert "would replace each other" in capsys.readouterr().err
    assert run(folder, "--soft", one, *size) == 0
    before = sorted(path.read_bytes() for path in (one / folder.name).iterdir())
    assert run(folder, "--output", one, *size) == 2
    assert "holds soft masks, which masks would replace" in capsys.readouterr().err
    assert sorted(path.read_bytes() for path in (one / folder.name).iterdir()) == before


def test_each_process_writes_its_own_times(
    run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        assert run(folder, "--soft", tmp_path / "soft", "--size", 32, "--timing", tmp_path / "t.json") == 0
    assert [path.name for path in tmp_path.glob("t*.json")] == ["t-rank0.json"]
    assert folder.name in json.loads((tmp_path / "t-rank0.json").read_text())["sequences"]


def test_bad_input_is_one_line(run: Run, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(9, 20):
        (folder / f"{number:05d}.png").unlink()
    cases: dict[str, tuple[object, ...]] = {
        "no such video": (tmp_path / "nowhere", "--output", tmp_path / "masks"),
        "--soft": (folder,),
        "10 or more frames": (folder, "--soft", tmp_path / "soft"),
        "--output": (folder, "--soft", tmp_path / "soft", "--overlay"),
        "working size": (folder, "--soft", tmp_path / "soft", "--size", 3),
    }
    for message, arguments in cases.items():
        assert run(*arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith("unsup-fg: ")
        assert message in error
        assert error.count("\n") == 1
