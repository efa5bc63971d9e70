from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dense_ulearn.cli import main
from dense_ulearn.inference import load
from dense_ulearn.official_lists import picture
from vos_shared.checkpoints.safetensors_io import load as read_ours
from vos_shared.checkpoints.safetensors_io import save as save_ours
from vos_shared.datasets.synthetic import write_davis_tree
from vos_shared.masks import read_mask, write_mask

Run = Callable[..., int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command line with these arguments; the exit code."""

    def run_with(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["dense-ulearn", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        return int(stop.value.code or 0)

    return run_with


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("davis")
    write_davis_tree(root, clips=2, frames=4, size=(48, 80))
    return root


def frames_of(tree: Path) -> list[list[Path]]:
    return [sorted(folder.iterdir()) for folder in sorted(next((tree / "JPEGImages").iterdir()).iterdir())]


def mask_of(tree: Path, frame: Path) -> Path:
    return tree / "Annotations" / frame.parts[-3] / frame.parts[-2] / f"{frame.stem}.png"


def inference_list(tree: Path, path: Path) -> Path:
    """A list as for YouTube-VOS: a mask in the first frame only, every second frame wanted."""
    lines = []
    for frames in frames_of(tree):
        for number, frame in enumerate(frames):
            mask = mask_of(tree, frame).relative_to(tree) if number == 0 else "nowhere/none.png"
            lines.append(f"{1 - number % 2} /{frame.relative_to(tree)} {mask}")
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_davis_tree_is_segmented(run: Run, tree: Path, tmp_path: Path) -> None:
    output, timing = tmp_path / "masks", tmp_path / "timing.json"
    assert run("segment", tree, "--output", output, "--weights", "untrained", "--overlay", "--timing", timing) == 0
    for frames in frames_of(tree):
        name = frames[0].parent.name
        np.testing.assert_array_equal(read_mask(output / name / "00000.png"), read_mask(mask_of(tree, frames[0])))
        assert len(list((output / name).glob("*.png"))) == 4
        assert (output / f"{name}.mp4").stat().st_size > 0
    assert timing.is_file()


def test_a_list_is_segmented_into_the_official_folders(run: Run, tree: Path, tmp_path: Path) -> None:
    listed = inference_list(tree, tmp_path / "list.txt")
    options = ("--weights", "untrained", "--layer", "key", "--no-exact-prompt")
    assert run("segment", tree, "--list", listed, "--pictures", "--output", tmp_path / "out", *options) == 0
    for frames in frames_of(tree):
        segmenter = load("untrained", "cpu", layer="key", exact_prompt=False)
        for number, frame in enumerate(frames):
            pixels = np.array(Image.open(frame).convert("RGB"))
            expected = segmenter.step(pixels, read_mask(mask_of(tree, frame)) if number == 0 else None).mask
            place = Path(frame.parent.name, f"{frame.stem}.png")
            assert (tmp_path / "out" / "key_vos" / place).exists() == (number % 2 == 0)
            if number % 2 == 0:
                np.testing.assert_array_equal(read_mask(tmp_path / "out" / "key_vos" / place), expected)
            drawn = np.array(Image.open(tmp_path / "out" / "key_vis" / place))
            np.testing.assert_array_equal(drawn, picture(pixels, expected))


def test_a_list_without_wanted_frames_and_pictures_that_are_gone(run: Run, tree: Path, tmp_path: Path) -> None:
    listed, output = inference_list(tree, tmp_path / "list.txt"), tmp_path / "out"
    first = frames_of(tree)[0][0].parent.name
    lines = ["0" + line[1:] if first in line else line for line in listed.read_text().splitlines()]
    listed.write_text("\n".join(lines))
    words = ("segment", tree, "--list", listed, "--pictures", "--output", output, "--weights=untrained")
    assert run(*words) == 0
    assert not list((output / "res4_vos" / first).iterdir())
    gone = output / "res4_vis" / first / "00001.png"
    gone.unlink()
    assert run(*words) == 0
    assert gone.exists()
    masks = output / "res4_vos" / frames_of(tree)[1][0].parent.name
    assert len(list(masks.iterdir())) > 1
    listed.write_text("\n".join([*("0" + line[1:] for line in lines[:-1]), "1" + lines[-1][1:]]))
    assert run(*words) == 0
    assert [path.stem for path in masks.iterdir()] == [frames_of(tree)[1][-1].stem]


def test_pictures_replace_nothing_of_others(run: Run, tree: Path, tmp_path: Path) -> None:
    listed, output = inference_list(tree, tmp_path / "list.txt"), tmp_path / "out"
    mine = output / "res4_vis" / frames_of(tree)[1][0].parent.name / "00000.png"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    assert run("segment", tree, "--list", listed, "--pictures", "--output", output, "--weights=untrained") == 2
    assert mine.read_text() == "mine"
    assert not (output / "res4_vos").exists()


def test_a_listed_sequence_without_any_mask_is_background(
    run: Run, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed, output = inference_list(tree, tmp_path / "list.txt"), tmp_path / "out"
    name = frames_of(tree)[1][0].parent.name
    lines = [" ".join(line.split()[:2]) if name in line else line for line in listed.read_text().splitlines()]
    listed.write_text("\n".join(lines))
    assert run("segment", tree, "--list", listed, "--output", output, "--weights=untrained") == 0
    assert not any(read_mask(path).any() for path in (output / "res4_vos" / name).iterdir())
    listed.write_text("\n".join(line for line in lines if name in line))
    assert run("segment", tree, "--list", listed, "--output", output, "--weights=untrained") == 2
    assert "none of its masks exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    "option", ["--soft-masks=soft", "--split=train", "--resolution=480p", "--prompt=mask.png", "--overlay"]
)
def test_a_list_leaves_no_place_for_other_inputs_and_outputs(
    run: Run, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    listed = inference_list(tree, tmp_path / "list.txt")
    assert run("segment", tree, "--list", listed, "--output", tmp_path / "out", option) == 2
    assert f"leave out {option.split('=')[0]}" in capsys.readouterr().err


def test_pictures_are_those_of_the_official_program(parity: Path) -> None:
    numbers = np.load(parity / "fixture_labelprop.npz")
    expected = numbers["s2_res4_vis_t5"].astype(int)
    drawn = picture(numbers["s2_frames"][5], numbers["s2_res4_labels"][5])
    assert np.abs(drawn - expected).max() <= 1


def test_weights_are_converted_in_both_directions(run: Run, tmp_path: Path) -> None:
    theirs, ours = tmp_path / "a.pth", tmp_path / "b.safetensors"
    assert run("import-weights", "untrained", theirs) == 0
    assert run("import-weights", theirs, ours, "--half") == 0
    assert run("import-weights", ours, tmp_path / "c.txt") == 2
    assert run("import-weights", ours, tmp_path / "d.pth", "--half") == 2
    assert not (tmp_path / "d.pth").exists()
    assert load(ours, "cpu").info.parameters == 11_505_856
    assert not load(theirs, "cpu").info.trained
    before = theirs.read_bytes()
    assert run("import-weights", theirs, theirs) == 2
    assert theirs.read_bytes() == before
    state, metadata = read_ours(ours)
    save_ours(ours, state, {**metadata, "epoch": "the last", "score": "good"})
    assert run("import-weights", ours, tmp_path / "e.pth") == 0
    assert run("weights") == 0


def test_the_exported_program_gives_the_same_features(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "features.pt2"
    assert run("export", path, "--size", 0, 56) == 2
    assert run("export", path, "--weights", "untrained", "--size", 40, 56, "--layer", "key") == 0
    frame = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    images = torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        found = torch.export.load(path).module()(images)[0].permute(1, 2, 0)
    torch.testing.assert_close(found, load("untrained", "cpu", layer="key").features(frame), rtol=0, atol=1e-5)


def test_bad_input_is_one_line_and_exit_code_two(
    run: Run, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = frames_of(tree)[0]
    small, colour = tmp_path / "small.png", tmp_path / "colour.png"
    write_mask(small, np.ones((9, 9), np.uint8))
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 80, 3), np.uint8)).save(colour)
    (tmp_path / "list.txt").write_text("1 JPEGImages/nothing/00000.jpg\n")
    (tmp_path / "odd.txt").write_text("JPEGImages/nothing/00000.jpg\n")
    (tmp_path / "empty.txt").write_text("\n")
    folder = frames[0].parent
    cases = {
        "no weights file": ("--weights", tmp_path / "none.pth", "--prompt", mask_of(tree, frames[0])),
        "must be of its frame's size": ("--weights", "untrained", "--prompt", small),
        "different colours": ("--weights", "untrained", "--prompt", colour),
        "has no mask": ("--weights", "untrained"),
        "1 of them are not there": ("--list", tmp_path / "list.txt"),
        "is not 'flag image mask'": ("--list", tmp_path / "odd.txt"),
        "is empty": ("--list", tmp_path / "empty.txt"),
        "--radius is inf; it must be more than 0, finite": ("--radius", "inf"),
        "leave out --prompt": ("--list", tmp_path / "list.txt", "--prompt", small),
    }
    for text, options in cases.items():
        assert run("segment", folder, "--output", tmp_path / "out", *options) == 2, text
        error = capsys.readouterr().err
        assert text in error
        assert error.startswith("dense-ulearn: ")
        assert error.count("\n") == 1
