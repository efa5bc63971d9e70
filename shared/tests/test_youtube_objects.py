"""YouTube-Objects: converted from the published layout, read, and scored by mean IU."""

from __future__ import annotations

import csv
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vos_shared.cli import main
from vos_shared.datasets import load_dataset, youtube_objects
from vos_shared.datasets.youtube_objects import prepare_youtube_objects
from vos_shared.doctor import examine
from vos_shared.errors import BadDataset, UserError
from vos_shared.evaluation import evaluate
from vos_shared.masks import read_mask

SIZE = (12, 20)


def add_video(root: Path, category: str, video: str, frames: int, labelled: tuple[int, ...]) -> None:
    shot = root / category / "data" / video / "shots" / "001"
    for kind in ("images", "labels"):
        (shot / kind).mkdir(parents=True)
    for t in range(frames):
        Image.new("RGB", SIZE[::-1], (t, 0, 0)).save(shot / "images" / f"frame{t:04d}.png")
    for t in labelled:
        # Losslessly stored despite the suffix .jpg, so that tests know each value.
        label = np.zeros(SIZE, np.uint8)
        label[:6] = np.where(np.arange(20) < 10, 128, 127)
        label[6:, t] = 255
        Image.fromarray(label).save(shot / "labels" / f"frame{t:04d}.jpg", "PNG")


@pytest.fixture
def published(tmp_path: Path) -> Path:
    root = tmp_path / "published"
    add_video(root, "car", "0001", 4, (0, 1, 3))
    add_video(root, "dog", "0002", 3, (1,))
    return root


@pytest.fixture
def prepared(published: Path, tmp_path: Path) -> Path:
    prepare_youtube_objects(published, tmp_path / "prepared")
    return tmp_path / "prepared"


def test_labels_become_black_and_white_at_127(prepared: Path) -> None:
    with Image.open(prepared / "Labels/car_0001/frame0001.png") as image:
        assert (image.format, image.mode) == ("PNG", "L")
        label = np.array(image)
    assert set(np.unique(label)) == {0, 255}
    assert (label[:6] == np.where(np.arange(20) < 10, 255, 0)).all()
    assert (label[6:, 1] == 255).all()
    assert (prepared / "all.txt").read_text() == "car_0001\ndog_0002\n"


def test_sequences_have_one_object_and_some_masks(prepared: Path) -> None:
    car, dog = load_dataset("youtube-objects", prepared)
    assert list(car.annotations) == ["frame0000", "frame0001", "frame0003"]
    assert len(car.frame_names) == 4
    assert car.object_ids() == [1]
    given = [name for name, prompt in dog.prompts() if prompt is not None]
    assert given == ["frame0001"]
    assert [next(iter(s.video)).shape for s in (car, dog)] == [(*SIZE, 3)] * 2


def test_preparing_in_place_twice_finds_the_same(published: Path) -> None:
    names = prepare_youtube_objects(published, published)
    before = {path: path.read_bytes() for path in published.rglob("*") if path.is_file()}
    assert prepare_youtube_objects(published, published) == names == ["car_0001", "dog_0002"]
    assert {path: path.read_bytes() for path in published.rglob("*") if path.is_file()} == before


def test_everything_missing_is_listed_at_once(prepared: Path, published: Path) -> None:
    for path in (prepared / "Labels/dog_0002").iterdir():
        path.unlink()
    (prepared / "Images/car_0001/frame0003.png").unlink()
    (prepared / "all.txt").write_text("car_0001\ncat_0009\ndog_0002\n")
    with pytest.raises(BadDataset) as caught:
        youtube_objects(prepared)
    for lack in ("images frame0003 of car_0001", "images of cat_0009", "labels of cat_0009", "labels of dog_0002"):
        assert lack in str(caught.value)
    for kind in ("car/data/0001/shots/001/images", "dog/data/0002/shots/001/labels"):
        for path in (published / kind).iterdir():
            path.unlink()
    with pytest.raises(BadDataset, match=r"001/images/\*\.png; .*001/labels/\*\.jpg"):
        prepare_youtube_objects(published, prepared)


def test_what_is_no_such_folder(published: Path, tmp_path: Path) -> None:
    with pytest.raises(BadDataset, match=r"lacks <category>/data/<video>/shots/001"):
        prepare_youtube_objects(tmp_path, tmp_path)
    with pytest.raises(BadDataset, match=r"a list all\.txt; make one with .*prepare_youtube_objects"):
        youtube_objects(published)
    with pytest.raises(BadDataset, match="leave out resolution 480p"):
        load_dataset("youtube-objects", published, resolution="480p")


def test_doctor_looks_at_the_files_and_at_the_list(prepared: Path) -> None:
    report = examine(prepared)
    assert report.rows == [("Images/car_0001", "4", "20x12", "3", "1"), ("Images/dog_0002", "3", "20x12", "1", "1")]
    assert report.problems == report.notes == []
    (prepared / "Labels/dog_0002/frame0001.png").write_bytes(b"")
    (prepared / "all.txt").write_text("cat_0009\n")
    damaged, missing = examine(prepared).problems
    assert "frame0001.png cannot be read" in damaged
    assert "lacks images of cat_0009" in missing


def predict(folder: Path, name: str, frame: str, columns: slice, size: tuple[int, int] = SIZE) -> None:
    mask = np.zeros(size, np.uint8)
    mask[:, columns] = 255
    (folder / name).mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(folder / name / f"{frame}.png")


def test_mean_iu_leaves_out_the_first_label_and_takes_any_size(prepared: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    predict(results, "car_0001", "frame0001", slice(0, 20), (24, 40))  # The left half, twice as large.
    predict(results, "car_0001", "frame0003", slice(0, 0))
    scores = evaluate("youtube-objects", youtube_objects(prepared), results)
    truth = 6 * 10 + 6
    assert scores.per_frame == {"car_0001": {"J": [pytest.approx(truth / 120), 0]}}
    assert scores.summary["J-Mean"] == pytest.approx(truth / 240)
    assert set(scores.summary) == {"J-Mean", "J-Recall", "J-Decay"}
    with pytest.raises(UserError, match="dog_0002 has 1 annotated frames; youtube-objects leaves out the first of"):
        evaluate("youtube-objects", youtube_objects(prepared, sequences=["dog_0002"]), results)


def test_the_mean_is_over_sequences_not_frames(published: Path, tmp_path: Path) -> None:
    add_video(published, "boat", "0003", 2, (0, 1))
    prepare_youtube_objects(published, tmp_path / "prepared")
    sequences = youtube_objects(tmp_path / "prepared", sequences=["boat_0003", "car_0001"])
    results = tmp_path / "results"
    for sequence in sequences:
        (results / sequence.name).mkdir(parents=True)
        for name, path in list(sequence.annotations.items())[1:]:
            right = read_mask(path, binary=True) if sequence.name == "boat_0003" else np.zeros(SIZE, np.uint8)
            Image.fromarray(right).save(results / sequence.name / f"{name}.png")
    assert evaluate("youtube-objects", sequences, results).summary["J-Mean"] == 0.5


def test_command_line(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--root", str(prepared), "--results", str(prepared / "Labels"), "--workers", "2"]
    files = ["--json", str(tmp_path / "s.json"), "--csv", str(tmp_path / "s.csv")]
    monkeypatch.setattr(sys, "argv", ["vos", "evaluate", "--dataset", "youtube-objects", *words, *files])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert capsys.readouterr().out.splitlines()[-1].split() == ["mean", "100.0", "100.0", "0.0"]
    assert json.loads((tmp_path / "s.json").read_text())["sequences"] == {"car_0001": {"J": 1}}
    with (tmp_path / "s.csv").open(newline="") as file:
        assert next(csv.reader(file)) == ["name", "J-Mean", "J-Recall", "J-Decay"]


@pytest.mark.skipif("VOS_PARITY" not in os.environ, reason="VOS_PARITY is not set")
def test_preparation_equals_the_official_one(tmp_path: Path) -> None:
    official = Path(os.environ["VOS_PARITY"], "osmn/e2e/YTO")
    names = prepare_youtube_objects(official, tmp_path)
    assert names == (official / "all.txt").read_text().split()
    for kind in ("Images", "Labels"):
        there = sorted(path.relative_to(official) for path in (official / kind).rglob("*.png"))
        assert sorted(path.relative_to(tmp_path) for path in (tmp_path / kind).rglob("*.png")) == there
        for path in there:
            with Image.open(official / path) as theirs, Image.open(tmp_path / path) as ours:
                assert ours.mode == theirs.mode
                np.testing.assert_array_equal(np.array(ours), np.array(theirs))
    evaluated = evaluate("youtube-objects", youtube_objects(official), official / "Labels", progress=False)
    assert list(evaluated.sequences) == names
