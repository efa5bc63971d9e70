"""The train command: each configuration yields weights that segment."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from osmn.checkpoints import read_weights

Run = Callable[..., int]


@pytest.mark.parametrize("preset", ["davis", "ytvos", "images", "coco"])
def test_training_runs_to_weights_that_segment(
    run: Run, preset: str, davis: Path, youtube: Path, photographs: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    data: tuple[object, ...]
    if preset == "davis":
        data = ("--root", davis, "--split", "val")
    elif preset == "ytvos":
        data = ("--root", youtube, "--dataset", "youtube-vos")
    elif preset == "images":
        data = ("--images", photographs, "--davis", davis)
    else:
        pytest.importorskip("pycocotools")
        data = ("--root", coco(tmp_path / "coco"))
    command = ("train", preset, *data, "--weights", tiny_weights, "--output", tmp_path / "run", "--device", "cpu",
               "--batch-size", 2, "--size", 32, 48, "--scales", 1.0, "--workers", 1)  # fmt: skip
    assert run(*command, "--steps", 1) == 0
    assert run(*command, "--steps", 2) == 2  # The folder holds a run already.
    assert run(*command, "--steps", 2, "--resume") == 0
    snapshot = read_weights(tmp_path / "run" / "last.safetensors")
    assert snapshot.metadata["steps"] == "2"
    assert snapshot.shorter_side == 32
    frames = next((davis / "JPEGImages").glob("*/*"))
    mask = sorted((davis / "Annotations" / frames.parent.name / frames.name).iterdir())[0]
    arguments = (frames, "--prompt", mask, "--weights", tmp_path / "run" / "last.safetensors", "--device", "cpu")
    assert run("segment", *arguments, "--output", tmp_path / "out") == 0


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


def test_weights_tell_the_names_of_their_data(
    run: Run, photographs: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photographs)
    command = ("train", "images", "--images", ".", "--weights", tiny_weights, "--output", tmp_path / "run")
    options = ("--device", "cpu", "--size", 32, 48, "--scales", 1.0, "--workers", 0, "--batch-size", 2, "--steps", 1)
    assert run(*command, *options) == 0
    assert read_weights(tmp_path / "run" / "last.safetensors").description == "osmn lite, trained on photographs"
