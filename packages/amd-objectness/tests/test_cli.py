"""The command on images, folders and videos; bad input is one line and exit code 2."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from amd_objectness.checkpoints import load_weights
from amd_objectness.cli import PROGRAM, main
from vos_shared.checkpoints import safetensors_io
from vos_shared.checkpoints.torch_pickle import load_torch
from vos_shared.files import read_json
from vos_shared.masks import read_mask
from vos_shared.testing import RunCommand


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three frames of 40 x 60 pixels."""
    folder = tmp_path_factory.mktemp("in") / "clip"
    folder.mkdir()
    for index, frame in enumerate(np.random.default_rng(0).integers(0, 256, (3, 40, 60, 3), np.uint8)):
        Image.fromarray(frame).save(folder / f"{index:05d}.png")
    return folder


@pytest.mark.parametrize("channel", [(), ("--channel", "auto"), ("--channel", "all")])
def test_a_folder_and_an_image_are_segmented(
    run_command: RunCommand, clip: Path, small_weights: Path, tmp_path: Path, channel: tuple[str, ...]
) -> None:
    for source in (clip, clip / "00001.png"):
        words = ("segment", source, "--weights", small_weights, "--output", tmp_path / "out", "--device", "cpu")
        done = run_command(main, PROGRAM, *words, *channel, "--soft-masks", tmp_path / "soft")
        assert done.code == 0, done.stderr
        masks = sorted((tmp_path / "out" / source.stem).glob("*.png"))
        assert len(masks) == (3 if source == clip else 1)
        assert read_mask(masks[0]).max() <= (5 if channel == ("--channel", "all") else 1)
        record = read_json(tmp_path / "out" / ".manifest" / f"{source.stem}.json")["extra"]
        if channel == ("--channel", "auto"):
            chosen = record["decisions"]
            assert f"{source.stem}: channel {chosen['channel']}, {chosen['reason']}" in done.stdout
        else:
            assert "channel" not in done.stdout
            assert not record.get("decisions")


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_grey_and_transparent_portrait_images_are_segmented(
    run_command: RunCommand, small_weights: Path, tmp_path: Path, mode: str
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 40, 3), np.uint8)
    Image.fromarray(noise).convert(mode).save(tmp_path / "a.png")
    words = ("segment", tmp_path / "a.png", "--weights", small_weights, "--output", tmp_path / "out")
    assert run_command(main, PROGRAM, *words, "--device", "cpu").code == 0
    assert read_mask(tmp_path / "out" / "a" / "a.png").shape == (60, 40)


def test_adapt_trains_on_one_video_or_on_a_whole_data_set(
    run_command: RunCommand, clip: Path, small_weights: Path, tmp_path: Path
) -> None:
    common = ("--weights", small_weights, "--device", "cpu", "--iterations", 1, "--pairs", 1)
    done = run_command(main, PROGRAM, "adapt", clip, *common, "--output", tmp_path / "one")
    assert done.code == 0, done.stderr
    assert len(list((tmp_path / "one" / "clip").glob("*.png"))) == 3
    together = ("adapt", clip, *common, "--output", tmp_path / "all", "--together")
    refused = run_command(main, PROGRAM, *together)
    assert refused.code == 2
    assert "give a folder with --models" in refused.stderr
    done = run_command(main, PROGRAM, *together, "--models", tmp_path / "models")
    assert done.code == 0, done.stderr
    (path,) = (tmp_path / "models" / "clip").glob("*.safetensors")
    assert load_weights(path).metadata["channel"] == "2"


def test_weights_go_to_the_official_format_and_back(
    run_command: RunCommand, small_weights: Path, tmp_path: Path
) -> None:
    official, again, backbone = tmp_path / "a.pth", tmp_path / "b.safetensors", tmp_path / "c.pth"
    assert run_command(main, PROGRAM, "import-weights", small_weights, official).code == 0
    done = run_command(main, PROGRAM, "import-weights", official, again, "--keys")
    assert done.code == 0, done.stderr
    assert "read      backbone2.conv1.weight [64, 3, 7, 7]" in done.stdout
    first, second = load_weights(small_weights).state, load_weights(again).state
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert run_command(main, PROGRAM, "import-weights", small_weights, backbone, "--backbone").code == 0
    assert "layer4.1.bn2.weight" in load_torch(backbone)


def test_bad_input_is_one_line_and_exit_code_2(
    run_command: RunCommand, clip: Path, small_weights: Path, tmp_path: Path
) -> None:
    out = ("--output", tmp_path / "out", "--device", "cpu")
    foreign = tmp_path / "foreign.safetensors"
    safetensors_io.save(foreign, {"weight": torch.zeros(1)}, {"network": "dense-ulearn"})
    state = dict(load_weights(small_weights).state)
    del state["decode_head2.conv_seg.weight"]
    torch.save({"meta": {}, "state_dict": state}, tmp_path / "missing.pth")
    (tmp_path / "lonely").mkdir()
    Image.new("RGB", (50, 50)).save(tmp_path / "lonely" / "0.png")
    for name, text in {
        "blank": "\n \n",
        "folder": "lonely\n",
        "one": "lonely 0.png\n",
        "gone": "lonely 0.png 1.png\n",
    }.items():
        (tmp_path / f"{name}.txt").write_text(text)
    segment, listed = ("segment", clip, *out), ("train", "ytvos", "--root", tmp_path, *out)
    cases: list[tuple[tuple[object, ...], str]] = [
        ((*segment, "--weights", foreign), "weights of dense-ulearn"),
        ((*segment, "--weights", tmp_path / "missing.pth"), "decode_head2.conv_seg.weight is missing"),
        ((*segment, "--weights", "nonsense"), "known names are amd_objectness_demo, amd_pretrained, untrained"),
        ((*segment, "--weights", small_weights, "--shorter-side", 2), "--shorter-side is 2"),
        ((*segment, "--weights", small_weights, "--threshold", 2), "--threshold is 2"),
        (("adapt", tmp_path / "lonely", "--weights", small_weights, *out), "video lonely has one frame"),
        ((*listed, "--list", tmp_path / "none.txt"), "cannot be read"),
        ((*listed, "--list", tmp_path / "blank.txt"), "is empty"),
        ((*listed, "--list", tmp_path / "folder.txt"), "names no frame"),
        ((*listed, "--list", tmp_path / "gone.txt"), "1 of them are not there"),
        ((*listed, "--list", tmp_path / "one.txt", "--backbone", "resnet18"), "no video has two frames"),
        (
            ("train", "custom", "--videos", tmp_path / "lonely", *out, "--backbone", "resnet18"),
            "no video has two frames",
        ),
        (("train", "custom", "--videos", clip, *out, "--crop", 4), "--crop is 4"),
        (("train", "custom", "--videos", clip, *out, "--shorter-side", 99_999), "--shorter-side is 99999"),
        (("train", "custom", "--videos", clip, *out, "--motion-size", 100, 100), "multiples of 64"),
        (("train", "custom", "--videos", clip, *out, "--shift", 500), "--shift is 500"),
        (("train", "custom", "--videos", clip, *out, "--width", 0), "--width is 0"),
        (("train", "custom", "--videos", clip, *out, "--resume"), "holds no run"),
        (("import-weights", small_weights, tmp_path / "a.txt"), "neither the suffix"),
        (("import-weights", foreign, tmp_path / "a.pth"), "weights of dense-ulearn"),
        (("export", tmp_path / "a.pt2", "--weights", small_weights, "--size", 4, 4), "--size of 8"),
    ]
    for words, said in cases:
        done = run_command(main, PROGRAM, *words)
        assert done.code == 2, (words, done)
        assert said in done.stderr, (words, done.stderr)
        assert len([line for line in done.stderr.splitlines() if line.startswith(PROGRAM)]) == 1, done.stderr


def test_a_failed_download_is_one_line_that_says_what_to_do(
    run_command: RunCommand, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: (_ for _ in ()).throw(OSError("no host")))
    done = run_command(main, PROGRAM, "segment", clip, "--weights", "amd_pretrained", "--output", tmp_path / "out")
    assert done.code == 2
    assert "amd_pretrained.pth by other means" in done.stderr


def test_help_lists_the_commands(run_command: RunCommand) -> None:
    done = run_command(main, PROGRAM, "--help")
    assert done.code == 0
    for command in (
        "segment",
        "adapt",
        "train",
        "finetune-semantic",
        "evaluate",
        "import-weights",
        "weights",
        "export",
    ):
        assert command in done.stdout


def test_the_exported_program_computes_the_segments(
    run_command: RunCommand, small_weights: Path, tmp_path: Path
) -> None:
    path = tmp_path / "a.pt2"
    assert run_command(main, PROGRAM, "export", path, "--weights", small_weights, "--size", 40, 56).code == 0
    images = torch.rand(1, 3, 40, 56)
    with torch.no_grad():
        expected = load_weights(small_weights).network()(images).softmax(1)
        torch.testing.assert_close(torch.export.load(path).module()(images), expected, atol=1e-5, rtol=1e-4)
