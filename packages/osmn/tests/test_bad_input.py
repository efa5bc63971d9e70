"""Bad input is one line and exit code 2."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from osmn.checkpoints import LITE_SCALE, save_weights
from osmn.networks import OSMN, Architecture, initialise
from vos_shared.checkpoints import safetensors_io
from vos_shared.masks import write_mask

Run = Callable[..., int]


def test_what_the_user_can_mend_is_one_line(
    run: Run,
    davis: Path,
    photographs: Path,
    tiny_weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = ("--output", tmp_path / "out", "--device", "cpu")
    foreign = tmp_path / "foreign.safetensors"
    safetensors_io.save(foreign, {"weight": torch.zeros(1)}, {"network": "dense-ulearn"})
    other = tmp_path / "other.safetensors"
    save_weights(other, initialise(OSMN(Architecture("lite", head_width=4))), LITE_SCALE, {})
    empty = tmp_path / "empty.png"
    write_mask(empty, np.zeros((48, 80), np.uint8))
    frames = next((davis / "JPEGImages").glob("*/*"))
    images = ("train", "images", "--images", photographs, *out)
    small = ("--size", 32, 32, "--scales", 1.0, "--batch-size", 1)
    online = ("finetune", davis, "--weights", tiny_weights, *out)
    damaged = tmp_path / "damaged.npz"
    damaged.write_bytes(b"PK\x03\x04 not a zip file")
    cases: list[tuple[tuple[object, ...], str]] = [
        (("segment", davis, "--weights", foreign, *out), "dense-ulearn"),
        (("segment", davis, "--weights", "ft_davis", *out), "download them"),
        (("segment", davis, "--weights", tmp_path / "none.ckpt", *out), "none.ckpt"),
        (("segment", frames, "--prompt", empty, "--weights", tiny_weights, *out), "no object"),
        (("segment", frames, "--weights", tiny_weights, *out), "--prompt"),
        (("segment", davis, "--weights", tiny_weights, "--shorter-side", 3, *out), "too small"),
        (("merge", davis, "--soft-masks", tmp_path / "nothing", "--output", tmp_path / "m"), "no soft masks"),
        ((*images, "--weights", foreign), "dense-ulearn"),
        ((*images, "--weights", "imagenet", "--variant", "lite"), "npz"),
        ((*images, "--weights", tiny_weights, "--resume"), "resume.pt"),
        ((*images, "--weights", damaged, "--variant", "lite"), "npz file"),
        (
            (
                "train",
                "davis",
                "--root",
                davis,
                "--split",
                "val",
                "--exclude",
                "nothing",
                "--weights",
                tiny_weights,
                *out,
            ),
            "--exclude names nothing",
        ),
        (("export", tmp_path / "programs", "--weights", tiny_weights, "--size", 0, 0), "too small"),
        (("train", "davis", "--root", tmp_path / "nowhere", "--weights", tiny_weights, *out), "nowhere"),
        (("train", "images", "--images", tmp_path / "nowhere", "--weights", tiny_weights, *out), "nowhere"),
        (("preprocess", "davis", tmp_path), "lists"),
        (("train", "images", "--images", "--weights", tiny_weights, *out), "nothing to train on"),
        ((*images, "--weights", tiny_weights, *small, "--fix-bn"), "--fix-bn and --fix-trunk-bn"),
        ((*images, "--weights", "random", "--variant", "osvos", *small, "--scales", 0.5), "or --fix-bn"),
        ((*images, "--weights", tiny_weights, "--scales", 0.001), "too small"),
        ((*images, "--weights", tiny_weights, "--scales", "inf"), "--scales is inf"),
        ((*images, "--weights", tiny_weights, "--frame-crop-ratio", 0.5), "--frame-crop-ratio"),
        ((*images, "--weights", tiny_weights, "--head-width", 0), "--head-width"),
        ((*images, "--weights", tiny_weights, "--fixed-seg-blocks", 14), "--fixed-seg-blocks"),
        ((*images, "--weights", tiny_weights, "--fixed-modulator-blocks", -1), "--fixed-modulator-blocks"),
        ((*images, "--weights", "random", "--variant", "deeplab", "--fixed-seg-blocks", 1), "only lite"),
        ((*images, "--weights", tiny_weights, "--fix-seg"), "--fixed-seg-blocks"),
        ((*images, "--weights", tiny_weights, "--drop-at", 0), "--drop-at"),
        ((*online, "--models", damaged), "is a file"),
        (("segment", davis, "--weights", tiny_weights, "--guide-frames", tmp_path / "none", *out), "is not a folder"),
        (("import-weights", tiny_weights, tiny_weights), "would replace the file"),
        (("import-weights", tiny_weights, tmp_path / "a.ckpt", "--half"), "--half"),
        ((*images, "--weights", tiny_weights, "--crop-ratio", -1), "--crop-ratio"),
        ((*images, "--weights", tiny_weights, "--std-ratio", -1), "--std-ratio"),
        ((*images, "--weights", tiny_weights, "--centre-ratio", "inf"), "--centre-ratio"),
        ((*images, "--weights", tiny_weights, "--angle", "nan"), "--angle"),
        ((*images, "--weights", tiny_weights, "--mask-shift", -1), "--mask-shift"),
        ((*images, "--weights", tiny_weights, "--mask-scale", 1.2, 0.8), "--mask-scale"),
        (("segment", davis, "--weights", tiny_weights, "--pad-ratio", "inf", *out), "--pad-ratio"),
        (("segment", davis, "--weights", tiny_weights, "--scale-value", "nan", *out), "--scale-value"),
        ((*online, "--scales", "inf"), "--scales is inf"),
        ((*online, "--scales", 0.001, "--fix-bn"), "larger --scales"),
        ((*online, "--learning-rate", "nan"), "--learning-rate"),
    ]
    for words, telling in cases:
        assert run(*words) == 2, words
        error = capsys.readouterr().err.strip()
        assert telling in error, (words, error)
        assert error.count("\n") == 0, error
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    checkpoint = tmp_path / "a.ckpt"
    checkpoint.with_name("a.ckpt.index").touch()
    assert run("segment", davis, "--weights", checkpoint, *out) == 2
    assert "pip install 'vos-shared[tensorflow]'" in capsys.readouterr().err
