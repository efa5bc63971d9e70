"""Measures of sets: known values of IoU, CorLoc, P and J, and errors in results folders."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from vos_shared.cli import Evaluate
from vos_shared.datasets import object_discovery, saliency, segtrack_v2, voc2012, youtube_objects_boxes
from vos_shared.errors import BadMask, BadResults, UserError
from vos_shared.evaluation import evaluate
from vos_shared.masks import write_mask
from vos_shared.metrics.detection import box_from_mask, box_iou
from vos_shared.metrics.segmentation import ConfusionMatrix, resized_soft_mask
from vos_shared.set_evaluation import evaluate_set, evaluate_set_wise

Array = npt.NDArray[Any]


def save(path: Path, values: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def square(at: int, value: int = 255, side: int = 8) -> Array:
    mask = np.zeros((20, 30), np.uint8)
    mask[at : at + side, at : at + side] = value
    return mask


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A saliency data set of two images, an 8 x 8 square each."""
    for k, name in enumerate(("a", "b")):
        save(tmp_path / f"set/images/{name}.jpg", np.full((20, 30, 3), 90, np.uint8))
        save(tmp_path / f"set/masks/{name}.png", square(4 + k))
    return tmp_path / "set"


@pytest.mark.parametrize("kind", ["grey", "palette", "npz", "npy", "objects", "nested"])
def test_the_truth_is_perfect_however_it_is_stored(images: Path, tmp_path: Path, kind: str) -> None:
    results = tmp_path / "results"
    results.mkdir()
    for k, name in enumerate(("a", "b")):
        mask = square(4 + k, 1)
        (results / name / "1").mkdir(parents=True)
        match kind:
            case "grey":
                save(results / f"{name}.png", mask * 255)
            case "nested":
                write_mask(results / name / f"{name}.png", mask)
            case "palette":
                write_mask(results / f"{name}.png", mask)
            case "npz":
                np.savez(results / f"{name}.npz", soft=mask.astype(np.float32))
            case "npy":
                np.save(results / f"{name}.npy", mask.astype(np.float64))
            case "objects":
                np.save(results / name / "1" / f"{name}.npy", mask.astype(np.float32))
    found = evaluate_set("saliency", saliency(images), results)
    assert found.summary["MAE"] == 0
    assert found.summary["maxF"] == pytest.approx(1)
    assert set(found.images) == {"a", "b"}


def test_processes_change_nothing(images: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(tmp_path / f"results/{name}.png", np.random.default_rng(3).integers(0, 256, (20, 30), np.uint8))
    one, two = (evaluate_set("saliency", saliency(images), tmp_path / "results", workers=k) for k in (1, 2))
    assert one == two


def test_a_finished_sequence_without_soft_masks_is_empty(images: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "results" / name).mkdir(parents=True)
        (tmp_path / "results/.manifest").mkdir(exist_ok=True)
        (tmp_path / f"results/.manifest/{name}.json").write_text("{}")
    found = evaluate_set("saliency", saliency(images), tmp_path / "results")
    assert found.summary["MAE"] == pytest.approx(64 / 600)


def test_what_is_wrong_with_results_is_one_line(images: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    sequences = saliency(images)
    with pytest.raises(BadResults, match="no such results folder"):
        evaluate_set("saliency", sequences, results)
    save(results / "a.png", square(4))
    with pytest.raises(BadResults, match="lacks results for 1 of 2: b"):
        evaluate_set("saliency", sequences, results)
    save(results / "b.png", square(4)[:10])
    with pytest.raises(BadResults, match=r"b.png is 30 wide and 10 high, .*results must have its size"):
        evaluate_set("saliency", sequences, results)
    (results / "b.png").unlink()
    np.savez(results / "b.npz", x=np.zeros((20, 30)), y=np.zeros(3))
    with pytest.raises(BadResults, match="holds 2 arrays"):
        evaluate_set("saliency", sequences, results)
    np.savez(results / "b.npz", x=np.full((20, 30), np.nan))
    with pytest.raises(BadResults, match="NaN"):
        evaluate_set("saliency", sequences, results)
    (results / "b.npz").write_bytes(b"PK\x03\x04cut")
    with pytest.raises(BadResults, match="cannot be read"):
        evaluate_set("saliency", sequences, results)
    with pytest.raises(UserError, match="between 0 and 1"):
        evaluate_set("object-discovery", sequences, results, threshold=1.5)


def test_set_wise_iou_sums_pixels_before_it_divides(images: Path, tmp_path: Path) -> None:
    save(tmp_path / "results/a.png", square(4))  # 64 of 64 right
    save(tmp_path / "results/b.png", np.zeros((20, 30), np.uint8))  # 64 missed
    found = evaluate_set_wise(saliency(images), tmp_path / "results")
    assert found.groups["foreground"] == {"IoU": 0.5, "Acc": 0.5}
    assert found.groups["background"]["IoU"] == pytest.approx(1072 / 1136)
    assert found.summary["mIoU"] == pytest.approx((0.5 + 1072 / 1136) / 2)
    assert found.summary["aAcc"] == pytest.approx(1136 / 1200)


def test_set_wise_iou_resizes_soft_masks(images: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", np.full((3, 4), 0.5, np.float32))
    assert evaluate_set_wise(saliency(images), tmp_path).groups["foreground"]["IoU"] == 0  # 0.5 is background.


def test_soft_masks_are_resized_with_corners_aligned() -> None:
    torch = pytest.importorskip("torch")
    soft = np.random.default_rng(0).random((6, 9)).astype(np.float32)
    for size in ((20, 31), (6, 9), (1, 1), (3, 50)):
        expected = torch.nn.functional.interpolate(
            torch.from_numpy(soft)[None, None], size, mode="bilinear", align_corners=True
        )
        np.testing.assert_allclose(resized_soft_mask(soft, size), expected[0, 0].numpy(), atol=1e-5)


def test_void_of_the_truth_does_not_count_and_void_of_a_prediction_is_wrong() -> None:
    matrix = ConfusionMatrix(3)
    matrix.add(np.array([[0, 1, 255, 1]], np.uint8), np.array([[0, 1, 2, 255]], np.uint8))
    np.testing.assert_array_equal(matrix.iou(), [1, 0.5, np.nan])
    np.testing.assert_array_equal(matrix.accuracy(), [1, 0.5, np.nan])
    assert matrix.pixel_accuracy() == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="not a class"):
        matrix.add(np.zeros((1, 1), np.uint8), np.full((1, 1), 7, np.uint8))


def test_confusion_of_splits_adds_up() -> None:
    random = np.random.default_rng(0)
    truth, predicted = random.integers(0, 4, (2, 30, 40), np.uint8)
    whole, parts = ConfusionMatrix(4), ConfusionMatrix(4)
    whole.add(truth, predicted)
    parts.add(truth[:11], predicted[:11])
    parts.add(truth[11:], predicted[11:])
    np.testing.assert_array_equal(whole.counts, parts.counts)
    expected = [(truth == k)[predicted == k].sum() / ((truth == k) | (predicted == k)).sum() for k in range(4)]
    np.testing.assert_allclose(whole.iou(), expected)


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    for name in ("x", "y"):
        save(tmp_path / f"voc/JPEGImages/{name}.jpg", np.full((20, 30, 3), 90, np.uint8))
    (tmp_path / "voc/SegmentationClass").mkdir()
    truth = square(4, 7)
    truth[:2] = 255
    write_mask(tmp_path / "voc/SegmentationClass/x.png", truth)
    write_mask(tmp_path / "voc/SegmentationClass/y.png", square(4, 12))
    (tmp_path / "voc/ImageSets/Segmentation").mkdir(parents=True)
    (tmp_path / "voc/ImageSets/Segmentation/val.txt").write_text("x\ny\n")
    return tmp_path / "voc"


def test_voc_iou_is_of_classes(voc: Path, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    write_mask(tmp_path / "results/x.png", np.maximum(square(4, 7), square(0, 3, 2)))  # 3 where the truth is void
    write_mask(tmp_path / "results/y.png", np.zeros((20, 30), np.uint8))
    found = evaluate_set("voc2012", voc2012(voc), tmp_path / "results")
    assert found.groups["car"]["IoU"] == 1
    assert found.groups["dog"]["IoU"] == 0
    assert found.summary["mIoU"] == pytest.approx((1 + 0 + 1012 / 1076) / 3)
    assert "aeroplane" in found.notes[0]
    write_mask(tmp_path / "results/y.png", square(4, 33))
    with pytest.raises(BadMask, match="holds id 33; the classes"):
        evaluate_set("voc2012", voc2012(voc), tmp_path / "results")


def test_object_discovery_takes_j_of_images_with_the_object(tmp_path: Path) -> None:
    for name in ("1", "2", "3"):
        save(tmp_path / f"set/Car100/{name}.jpg", np.full((20, 30, 3), 90, np.uint8))
    save(tmp_path / "set/Car100/GroundTruth/1.png", square(4))
    save(tmp_path / "set/Car100/GroundTruth/2.png", np.zeros((20, 30), np.uint8))
    for name, value in (("1", square(4)), ("2", square(0)), ("3", square(20))):
        save(tmp_path / f"results/Car100_{name}.png", value)
    found = evaluate_set("object-discovery", object_discovery(tmp_path / "set"), tmp_path / "results")
    assert found.summary["J"] == 1
    assert found.summary["P"] == pytest.approx((1 + 536 / 600 + 1) / 3)
    assert "1 of 3 images have no mask file" in found.notes[0]
    assert found.to_json()["images"]["Car100_2"]["J"] is None


def test_the_box_is_that_of_the_largest_part() -> None:
    soft = np.zeros((20, 30))
    soft[2:5, 3:9] = 0.9
    soft[5, 9] = 0.8  # Touches at a corner.
    soft[15:17, 1:3] = 1
    assert box_from_mask(soft) == (2, 3, 6, 10)
    assert box_from_mask(0.1 * soft - 5) == (2, 3, 6, 10)
    assert box_from_mask(np.zeros((20, 30))) == (0, 0, 20, 30)


def test_boxes_overlap_by_their_pixels() -> None:
    assert box_iou((0, 0, 10, 10), (0, 0, 10, 10)) == 1
    assert box_iou((0, 0, 10, 10), (0, 5, 10, 15)) == pytest.approx(1 / 3)
    assert box_iou((0, 0, 10, 10), (10, 10, 20, 20)) == 0


def test_corloc_is_the_mean_of_classes_and_takes_the_best_object(tmp_path: Path) -> None:
    rows = [
        ("dog/1.jpg", 1, 1, 2, 2),
        ("dog/1.jpg", 5, 5, 12, 12),
        ("dog/2.jpg", 1, 1, 3, 3),
        ("cat/1.jpg", 5, 5, 12, 12),
    ]
    for image in ("dog/1.jpg", "dog/2.jpg", "cat/1.jpg"):
        save(tmp_path / "set" / image, np.full((20, 30, 3), 90, np.uint8))
    with (tmp_path / "set/boxes.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "xmin", "ymin", "xmax", "ymax"), *rows])
    for name in ("dog-1", "dog-2", "cat-1"):
        save(tmp_path / f"results/{name}.png", square(4))
    sequences = youtube_objects_boxes(tmp_path / "set")
    found = evaluate_set("youtube-objects-boxes", sequences, tmp_path / "results", root=tmp_path / "set")
    assert found.groups == {"cat": {"CorLoc": 1.0}, "dog": {"CorLoc": 0.5}}
    assert found.summary == {"CorLoc": 0.75}
    assert found.images["dog-1"]["IoU"] == 1


def test_segtrack_takes_j_of_all_objects_in_every_frame(tmp_path: Path) -> None:
    for video, frames in (("long", 3), ("short", 1)):
        for t in range(frames):
            save(tmp_path / f"set/JPEGImages/{video}/{video}_{t}.png", np.full((20, 30, 3), 90, np.uint8))
            for k in (1, 2):
                save(tmp_path / f"set/GroundTruth/{video}/{k}/{video}_{t}.png", square(6 * (k - 1), side=6))
            (tmp_path / "results" / video).mkdir(parents=True, exist_ok=True)
            both = np.maximum(square(0, 3, 6), square(6, 1, 6))
            write_mask(tmp_path / f"results/{video}/{video}_{t}.png", both if video == "long" else square(0, 1, 6))
    scores = evaluate("segtrack-v2", segtrack_v2(tmp_path / "set"), tmp_path / "results", workers=2)
    assert scores.sequences == {"long": {"J": 1.0}, "short": {"J": 0.5}}
    assert scores.summary["J-Mean"] == 0.75
    assert scores.frame_mean == pytest.approx(3.5 / 4)


def test_the_command_prints_a_table_and_writes_files(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        save(tmp_path / f"results/{name}.png", square(4))
    Evaluate(
        dataset="saliency", root=images, results=tmp_path / "results", json=tmp_path / "s.json", csv=tmp_path / "s.csv"
    ).run()
    header, _, row = capsys.readouterr().out.splitlines()
    assert header.split()[:3] == ["saliency", "MAE", "maxF"]
    assert row.split()[0] == "all"
    written = json.loads((tmp_path / "s.json").read_text())
    assert written["images"]["a"]["MAE"] == 0
    assert (tmp_path / "s.csv").read_text().splitlines()[2].startswith("a,0.0,")
    Evaluate(dataset="saliency", root=images, results=tmp_path / "results", set_wise=True).run()
    assert "foreground" in capsys.readouterr().out


def test_nothing_here_loads_torch() -> None:
    import subprocess

    code = "import sys, vos_shared.set_evaluation, vos_shared.datasets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
