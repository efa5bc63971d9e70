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

from osmn.cli import main
from osmn.networks import OSMN, VARIANTS, Architecture, initialise
from osmn.snapshots import LITE_SCALE, load_snapshot, load_weights, save_snapshot
from vos_shared.datasets.synthetic import write_davis_tree
from vos_shared.masks import read_mask, write_mask

Run = Callable[..., int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command line with these arguments; the exit code."""

    def run_with(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["osmn", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        return int(stop.value.code or 0)

    return run_with


@pytest.fixture(scope="module")
def davis(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("davis")
    write_davis_tree(root, clips=2, frames=4, size=(48, 80))
    return root


@pytest.fixture(scope="module")
def youtube(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """YouTube-VOS with a train and a valid part; in ``late`` the second object appears in the second frame."""
    root = tmp_path_factory.mktemp("youtube")
    rng = np.random.default_rng(0)
    names = ["00000", "00005", "00010"]
    videos = {"early": {"1": names}, "late": {"1": names, "2": names[1:]}}
    for split in ("train", "valid"):
        for video, objects in videos.items():
            frames, masks = (root / split / folder / video for folder in ("JPEGImages", "Annotations"))
            frames.mkdir(parents=True)
            masks.mkdir(parents=True)
            for t, name in enumerate(names):
                Image.fromarray(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(frames / f"{name}.jpg")
                mask = np.zeros((48, 64), np.uint8)
                for key, listed in objects.items():
                    if name in listed and (split == "train" or name == listed[0]):
                        mask[10:30, 30 * int(key) - 25 + t : 30 * int(key) - 5 + t] = int(key)
                if mask.any():
                    write_mask(masks / f"{name}.png", mask)
        meta = {
            "videos": {
                video: {"objects": {key: {"category": "thing", "frames": listed} for key, listed in objects.items()}}
                for video, objects in videos.items()
            }
        }
        (root / split / "meta.json").write_text(json.dumps(meta))
    return root


def masks_in(folder: Path) -> dict[str, np.ndarray]:
    return {str(path.relative_to(folder)): read_mask(path) for path in sorted(folder.glob("*/*.png"))}


def test_segment_writes_masks_and_scores_that_merge_to_the_same_masks(
    run: Run, davis: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    command = ("segment", davis, "--weights", tiny_weights, "--output", tmp_path / "out", "--device", "cpu")
    assert run(*command, "--scores", tmp_path / "scores") == 0
    masks = masks_in(tmp_path / "out")
    assert len(masks) == 8
    assert run("merge", davis, "--scores", tmp_path / "scores", "--output", tmp_path / "merged") == 0
    merged = masks_in(tmp_path / "merged")
    assert merged.keys() == masks.keys()
    for name, mask in masks.items():
        np.testing.assert_array_equal(merged[name], mask)


def test_merged_masks_do_not_replace_the_soft_masks(
    run: Run, davis: Path, tiny_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = tmp_path / "scores"
    command = ("segment", davis, "--weights", tiny_weights, "--output", tmp_path / "out", "--device", "cpu")
    assert run(*command, "--scores", scores) == 0
    before = sorted(scores.rglob("*"))
    sequence = min(path.name for path in (davis / "JPEGImages").glob("*/*"))
    for output in (scores, scores / sequence):
        assert run("merge", davis, "--scores", scores, "--output", output) == 2
        assert "would replace each other" in capsys.readouterr().err
    assert sorted(scores.rglob("*")) == before


def test_soft_masks_of_other_weights_are_not_taken_for_these(
    run: Run, davis: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.safetensors"
    torch.manual_seed(1)
    save_snapshot(other, initialise(OSMN(Architecture("lite", head_width=8))), LITE_SCALE, {"trained": "false"})
    common = ("segment", davis, "--output", tmp_path / "out", "--device", "cpu")
    scores = ("--scores", tmp_path / "scores")

    def last() -> np.ndarray:
        return np.asarray(np.load(max((tmp_path / "scores").glob("*/1/*.npy"))))

    assert run(*common, "--weights", tiny_weights, *scores) == 0
    before = last()
    assert run(*common, "--weights", other) == 0
    assert run(*common, "--weights", other, *scores) == 0
    assert not np.array_equal(last(), before)
    written = max((tmp_path / "scores").glob("*/1/*.npy")).stat().st_mtime_ns
    assert run(*common, "--weights", other, *scores) == 0  # Finished: nothing is computed again.
    assert max((tmp_path / "scores").glob("*/1/*.npy")).stat().st_mtime_ns == written


def test_finetune_is_the_online_variant(run: Run, davis: Path, tiny_weights: Path, tmp_path: Path) -> None:
    name = sorted(path.name for path in next((davis / "JPEGImages").iterdir()).iterdir())[0]
    common = (davis, "--weights", tiny_weights, "--sequences", name, "--device", "cpu")
    assert run("finetune", *common, "--iterations", 2, "--scales", 1.0, "--output", tmp_path / "online") == 0
    assert len(masks_in(tmp_path / "online")) == 4
    record = json.loads((tmp_path / "online" / ".manifest" / f"{name}.json").read_text())
    assert record["settings"]["method"] == "osmn+online"
    assert record["settings"]["options"]["iterations"] == 2


@pytest.mark.parametrize("preset", ["davis", "ytvos", "images", "coco"])
def test_training_runs_to_weights_that_segment(
    run: Run, preset: str, davis: Path, youtube: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    data: tuple[object, ...]
    if preset == "davis":
        data = ("--root", davis, "--split", "val")
    elif preset == "ytvos":
        data = ("--root", youtube, "--dataset", "youtube-vos")
    elif preset == "images":
        data = ("--images", photographs(tmp_path / "photographs"), "--davis", davis)
    else:
        pytest.importorskip("pycocotools")
        data = ("--root", coco(tmp_path / "coco"))
    command = ("train", preset, *data, "--weights", tiny_weights, "--output", tmp_path / "run", "--device", "cpu",
               "--batch-size", 2, "--size", 32, 48, "--scales", 1.0, "--workers", 1)  # fmt: skip
    assert run(*command, "--steps", 1) == 0
    assert run(*command, "--steps", 2) == 2  # The folder holds a run.
    assert run(*command, "--steps", 2, "--resume") == 0
    snapshot = load_snapshot(tmp_path / "run" / "last.safetensors")
    assert snapshot.metadata["steps"] == "2"
    assert snapshot.shorter_side == 32
    frames = next((davis / "JPEGImages").glob("*/*"))
    mask = sorted((davis / "Annotations" / frames.parent.name / frames.name).iterdir())[0]
    arguments = (frames, "--prompt", mask, "--weights", tmp_path / "run" / "last.safetensors", "--device", "cpu")
    assert run("segment", *arguments, "--output", tmp_path / "out") == 0


def photographs(root: Path) -> Path:
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    mask = np.zeros((50, 70), np.uint8)
    mask[10:30, 20:50] = 255
    Image.fromarray(rng.integers(0, 255, (50, 70, 3), dtype=np.uint8)).save(root / "images" / "one.png")
    Image.fromarray(mask).save(root / "masks" / "one.png")
    return root


def coco(root: Path) -> Path:
    (root / "train2017").mkdir(parents=True)
    (root / "annotations").mkdir()
    Image.new("RGB", (70, 50), (90, 120, 30)).save(root / "train2017" / "000000000001.jpg")
    outline = [20, 10, 50, 10, 50, 40, 20, 40]
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [outline], "area": 900.0, "iscrowd": 0}
    annotation["bbox"] = [20, 10, 30, 30]
    (root / "annotations" / "instances_train2017.json").write_text(
        json.dumps(
            {
                "images": [{"id": 1, "file_name": "000000000001.jpg", "width": 70, "height": 50}],
                "annotations": [annotation],
                "categories": [{"id": 1, "name": "thing"}],
            }
        )
    )
    return root


def test_youtube_vos_to_a_submission(
    run: Run, youtube: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vos_shared.cli import main as vos

    source = (youtube, "--dataset", "youtube-vos", "--weights", tiny_weights, "--device", "cpu")
    assert run("segment", *source, "--output", tmp_path / "out") == 0
    first = masks_in(tmp_path / "out")["late/00000.png"]
    assert set(np.unique(first)) <= {0, 1}  # Object 2 is not there yet.
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
    save_snapshot(ours, model, LITE_SCALE if variant == "lite" else 1.0, {})
    assert run("import-weights", ours, prefix) == 0
    assert (tmp_path / "official" / "osmn.ckpt-7.index").is_file()
    assert run("import-weights", prefix, tmp_path / "back.safetensors") == 0
    back = load_snapshot(tmp_path / "back.safetensors")
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
    # Any stray file in there breaks the official test.
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
        save_snapshot(tmp_path / "ours.safetensors", model, LITE_SCALE, notes)
        assert run("import-weights", tmp_path / "ours.safetensors", tmp_path / "osmn.ckpt-7") == 0
        assert capsys.readouterr().out.count("--shorter-side 240") == said


def test_weights_tell_the_names_of_their_data(
    run: Run, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photographs(tmp_path / "photographs"))
    command = ("train", "images", "--images", ".", "--weights", tiny_weights, "--output", tmp_path / "run")
    options = ("--device", "cpu", "--size", 32, 48, "--scales", 1.0, "--workers", 0, "--batch-size", 2, "--steps", 1)
    assert run(*command, *options) == 0
    assert load_snapshot(tmp_path / "run" / "last.safetensors").description == "osmn lite, trained on photographs"


def test_exported_programs_compute_the_same(run: Run, tiny_weights: Path, tmp_path: Path) -> None:
    assert run("export", tmp_path / "programs", "--weights", tiny_weights, "--size", 32, 48) == 0
    model = load_snapshot(tiny_weights).model
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


def test_what_the_user_can_mend_is_one_line(
    run: Run,
    davis: Path,
    tiny_weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = ("--output", tmp_path / "out", "--device", "cpu")
    foreign = tmp_path / "foreign.safetensors"
    from vos_shared.checkpoints import ours

    ours.save(foreign, {"weight": torch.zeros(1)}, {"network": "dense-ulearn"})
    other = tmp_path / "other.safetensors"
    save_snapshot(other, initialise(OSMN(Architecture("lite", head_width=4))), LITE_SCALE, {})
    empty = tmp_path / "empty.png"
    write_mask(empty, np.zeros((48, 80), np.uint8))
    frames = next((davis / "JPEGImages").glob("*/*"))
    images = ("train", "images", "--images", photographs(tmp_path / "photographs"), *out)
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
        (("merge", davis, "--scores", tmp_path / "nothing", "--output", tmp_path / "m"), "no soft masks"),
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
