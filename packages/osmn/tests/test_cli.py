"""The command line, from data sets on disk to masks, weights and submissions."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from osmn.checkpoints import LITE_SCALE, load_weights, read_weights, save_weights
from osmn.networks import OSMN, VARIANTS, Architecture, initialise
from vos_shared.datasets.synthetic import write_davis_tree
from vos_shared.masks import read_mask

Run = Callable[..., int]


def masks_in(folder: Path) -> dict[str, np.ndarray]:
    return {str(path.relative_to(folder)): read_mask(path) for path in sorted(folder.glob("*/*.png"))}


def test_segment_writes_masks_and_scores_that_merge_to_the_same_masks(
    run: Run, davis: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    command = ("segment", davis, "--weights", tiny_weights, "--output", tmp_path / "out", "--device", "cpu")
    assert run(*command, "--soft-masks", tmp_path / "scores") == 0
    masks = masks_in(tmp_path / "out")
    assert len(masks) == 8
    assert run("merge", davis, "--soft-masks", tmp_path / "scores", "--output", tmp_path / "merged") == 0
    merged = masks_in(tmp_path / "merged")
    assert merged.keys() == masks.keys()
    for name, mask in masks.items():
        np.testing.assert_array_equal(merged[name], mask)


def test_merged_masks_do_not_replace_the_soft_masks(
    run: Run, davis: Path, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = tmp_path / "scores"
    command = ("segment", davis, "--weights", tiny_weights, "--output", tmp_path / "out", "--device", "cpu")
    assert run(*command, "--soft-masks", scores) == 0
    before = sorted(scores.rglob("*"))
    sequence = min(path.name for path in (davis / "JPEGImages").glob("*/*"))
    for output in (scores, scores / sequence):
        assert run("merge", davis, "--soft-masks", scores, "--output", output) == 2
        assert "would replace each other" in capsys.readouterr().err
    assert sorted(scores.rglob("*")) == before


def test_soft_masks_of_other_weights_are_not_taken_for_these(
    run: Run, davis: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.safetensors"
    torch.manual_seed(1)
    save_weights(other, initialise(OSMN(Architecture("lite", head_width=8))), LITE_SCALE, {"trained": "false"})
    common = ("segment", davis, "--output", tmp_path / "out", "--device", "cpu")
    scores = ("--soft-masks", tmp_path / "scores")

    def last() -> np.ndarray:
        return np.asarray(np.load(max((tmp_path / "scores").glob("*/1/*.npy"))))

    assert run(*common, "--weights", tiny_weights, *scores) == 0
    before = last()
    assert run(*common, "--weights", other) == 0
    assert run(*common, "--weights", other, *scores) == 0
    assert not np.array_equal(last(), before)
    written = max((tmp_path / "scores").glob("*/1/*.npy")).stat().st_mtime_ns
    assert run(*common, "--weights", other, *scores) == 0  # Finished sequences are not computed again.
    assert max((tmp_path / "scores").glob("*/1/*.npy")).stat().st_mtime_ns == written


def test_finetune_is_the_online_variant(run: Run, davis: Path, tiny_weights: Path, tmp_path: Path) -> None:
    name = sorted(path.name for path in next((davis / "JPEGImages").iterdir()).iterdir())[0]
    common = (davis, "--weights", tiny_weights, "--sequences", name, "--device", "cpu")
    assert run("finetune", *common, "--iterations", 2, "--scales", 1.0, "--output", tmp_path / "online") == 0
    assert len(masks_in(tmp_path / "online")) == 4
    record = json.loads((tmp_path / "online" / ".manifest" / f"{name}.json").read_text())
    assert record["settings"]["method"] == "osmn+online"
    assert record["settings"]["options"]["iterations"] == 2


def test_youtube_vos_to_a_submission(
    run: Run, youtube: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vos_shared.cli import main as vos

    source = (youtube, "--dataset", "youtube-vos", "--weights", tiny_weights, "--device", "cpu")
    assert run("segment", *source, "--output", tmp_path / "out") == 0
    first = masks_in(tmp_path / "out")["late/00000.png"]
    assert set(np.unique(first)) <= {0, 1}  # Object 2 has not appeared yet.
    archive = tmp_path / "submission.zip"
    words = (
        "submit",
        "--dataset",
        "youtube-vos",
        "--root",
        youtube,
        "--results",
        tmp_path / "out",
        "--output",
        archive,
    )
    monkeypatch.setattr(sys, "argv", ["vos", *map(str, words)])
    with pytest.raises(SystemExit) as stop:
        vos()
    assert not stop.value.code
    assert archive.is_file()


@pytest.mark.parametrize(
    "architecture", [VARIANTS["lite"], VARIANTS["no_visual"], Architecture("lite", head_width=8)], ids=str
)
def test_official_checkpoints_in_both_directions(run: Run, architecture: Architecture, tmp_path: Path) -> None:
    if find_spec("tensorflow") is None:
        pytest.skip("TensorFlow is not installed")
    variant = "lite" if architecture.base_model == "lite" else "no_visual"
    torch.manual_seed(0)
    ours, prefix = tmp_path / "ours.safetensors", tmp_path / "official" / "osmn.ckpt-7"
    model = initialise(OSMN(architecture))
    save_weights(ours, model, LITE_SCALE if variant == "lite" else 1.0, {})
    assert run("import-weights", ours, prefix) == 0
    assert (tmp_path / "official" / "osmn.ckpt-7.index").is_file()
    assert run("import-weights", prefix, tmp_path / "back.safetensors") == 0
    back = read_weights(tmp_path / "back.safetensors")
    assert back.model.architecture == model.architecture
    assert back.scale_value == (LITE_SCALE if variant == "lite" else 1.0)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(back.model.state_dict()[name], value, rtol=0, atol=0)
    assert load_weights(prefix).description == f"official checkpoint osmn.ckpt-7, variant {variant}"


def test_preprocess_writes_one_binary_mask_an_object(run: Run, davis: Path) -> None:
    assert run("preprocess", "davis", davis) == 0
    (resolution,) = [path for path in (davis / "Annotations").iterdir() if not path.name.endswith(("_split", "_all"))]
    for mask_file in resolution.glob("*/*.png"):
        mask, name = read_mask(mask_file), mask_file.relative_to(resolution)
        union = np.asarray(Image.open(davis / "Annotations" / f"{resolution.name}_all" / name))
        np.testing.assert_array_equal(union, np.where(mask > 0, 255, 0))
        split = davis / "Annotations" / f"{resolution.name}_split" / name.parent
        for folder in split.iterdir():
            np.testing.assert_array_equal(np.asarray(Image.open(folder / name.name)) > 0, mask == int(folder.name))


def test_preprocess_replaces_its_own_folders_alone(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_davis_tree(tmp_path, clips=2, frames=2, size=(48, 80))
    assert run("preprocess", "davis", tmp_path) == 0
    *_, last = sorted((tmp_path / "Annotations").glob("*_split/*"))
    stale = last / "9"
    stale.mkdir()
    # Any other file there breaks the official test.
    assert run("preprocess", "davis", tmp_path) == 0
    assert not stale.exists()
    assert all(path.name.isdigit() for path in last.iterdir())
    other = tmp_path / "other"
    (theirs := other / last.parent.name / last.name / "1").mkdir(parents=True)
    assert run("preprocess", "davis", tmp_path, "--output", other) == 2
    assert "choose another output folder" in capsys.readouterr().err
    assert [path for path in other.rglob("*") if path not in theirs.parents] == [theirs]


def test_what_the_weights_ask_for_and_tensorflow_cannot_hold_is_said(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if find_spec("tensorflow") is None:
        pytest.skip("TensorFlow is not installed")
    model = initialise(OSMN(Architecture("lite", head_width=8)))
    for notes, said in ({"shorter_side": "240"}, 1), ({}, 0):
        save_weights(tmp_path / "ours.safetensors", model, LITE_SCALE, notes)
        assert run("import-weights", tmp_path / "ours.safetensors", tmp_path / "osmn.ckpt-7") == 0
        assert capsys.readouterr().out.count("--shorter-side 240") == said


def test_exported_programs_compute_the_same(run: Run, tiny_weights: Path, tmp_path: Path) -> None:
    assert run("export", tmp_path / "programs", "--weights", tiny_weights, "--size", 32, 48) == 0
    model = read_weights(tiny_weights).model
    guide, image, spatial = torch.randn(1, 3, 224, 224), torch.randn(1, 3, 32, 48), torch.rand(1, 1, 32, 48)
    visual, frame = (torch.export.load(tmp_path / "programs" / f"{name}.pt2").module() for name in ("visual", "frame"))
    with torch.no_grad():
        gamma = model.visual_modulation(guide)
        torch.testing.assert_close(visual(guide), gamma)
        torch.testing.assert_close(frame(image, spatial, gamma), model(image, spatial, gamma), rtol=1e-4, atol=1e-4)


def test_weights_lists_what_there_is(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("weights") == 0
    said = capsys.readouterr().out
    assert all(name in said for name in ("osmn_lite_demo", "train_coco", "ft_davis"))
