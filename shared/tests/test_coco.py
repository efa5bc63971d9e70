"""COCO objects: the masks of pycocotools, without crowds and small objects."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vos_shared.datasets.coco import CocoObjects
from vos_shared.errors import BadDataset, BadVideo, MissingExtra

codec = pytest.importorskip("pycocotools.mask")

HEIGHT, WIDTH = 20, 30
SQUARE = [2, 3, 12, 3, 12, 13, 2, 13]
"""A polygon of 10 by 10 pixels: columns 2 to 11, rows 3 to 12."""


def square() -> Any:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[3:13, 2:12] = True
    return mask


def compressed(mask: Any) -> dict[str, Any]:
    runs = codec.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": runs["size"], "counts": runs["counts"].decode()}


def uncompressed(mask: Any) -> dict[str, Any]:
    flat = mask.flatten(order="F")
    edges = np.flatnonzero(np.diff(flat.astype(int))) + 1
    counts = np.diff([0, *edges, flat.size]).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}


def annotation(segmentation: Any, image_id: int = 1, **more: Any) -> dict[str, Any]:
    return {"id": 7, "image_id": image_id, "category_id": 1, "segmentation": segmentation, "iscrowd": 0, **more}


def write_coco(root: Path, *annotations: dict[str, Any]) -> Path:
    """A folder with photographs a.jpg (colour) and b.jpg (grey) and these annotations."""
    (root / "train2017").mkdir(parents=True, exist_ok=True)
    (root / "annotations").mkdir(exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT), (200, 10, 10)).save(root / "train2017" / "a.jpg", quality=100)
    Image.new("L", (WIDTH, HEIGHT), 60).save(root / "train2017" / "b.jpg")
    images = [
        {"id": k, "file_name": f"{name}.jpg", "height": HEIGHT, "width": WIDTH} for k, name in ((1, "a"), (2, "b"))
    ]
    path = root / "annotations" / "instances_train2017.json"
    path.write_text(json.dumps({"images": images, "annotations": list(annotations), "categories": []}))
    return root


@pytest.mark.parametrize("segmentation", [[SQUARE], compressed(square()), uncompressed(square())])
def test_polygons_and_run_lengths_give_the_same_mask(tmp_path: Path, segmentation: Any) -> None:
    objects = CocoObjects(write_coco(tmp_path, annotation(segmentation)))
    assert len(objects) == 1
    frame, mask = objects[0]
    assert frame.shape == (HEIGHT, WIDTH, 3)
    assert frame.dtype == np.uint8
    assert frame[0, 0, 0] > 190  # RGB order.
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, square())


def test_polygons_of_one_object_are_joined(tmp_path: Path) -> None:
    other = [20, 0, 25, 0, 25, 5, 20, 5]
    _, mask = CocoObjects(write_coco(tmp_path, annotation([SQUARE, other])))[0]
    assert mask.sum() == 100 + 25


def test_crowds_and_small_objects_are_left_out(tmp_path: Path) -> None:
    small, enough = square(), square()
    small[:], enough[:] = False, False
    small.flat[:18], enough.flat[:19] = True, True  # 18 of 600 pixels are exactly 3 %.
    root = write_coco(
        tmp_path,
        annotation(compressed(small)),
        annotation(compressed(enough), image_id=2),
        annotation(uncompressed(square()), iscrowd=1),
        annotation([]),
    )
    objects = CocoObjects(root)
    assert len(objects) == 1
    frame, mask = objects[0]
    assert mask.sum() == 19
    assert (frame == 60).all()  # Converted to RGB.
    assert len(CocoObjects(root, min_share=0.02)) == 2
    with pytest.raises(BadDataset, match=r"holds no object that covers more than 20\.0%"):
        CocoObjects(root, min_share=0.2)


def test_masks_are_those_of_pycocotools_own_reader(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pycocotools.coco import COCO

    random = np.random.default_rng(0)
    triangles = [(random.random((3, 2)) * (WIDTH, HEIGHT)).round(2).ravel().tolist() for _ in range(20)]
    annotations = [annotation([triangle]) | {"id": k} for k, triangle in enumerate(triangles)]
    root = write_coco(tmp_path, *annotations)
    reader = COCO(str(root / "annotations/instances_train2017.json"))
    capsys.readouterr()
    masks = [reader.annToMask(reader.anns[k]).astype(bool) for k in range(20)]
    expected = [mask for mask in masks if mask.mean() > 0.03]
    objects = CocoObjects(root)
    assert capsys.readouterr().out == ""
    assert len(objects) == len(expected) > 5
    for k, mask in enumerate(expected):
        np.testing.assert_array_equal(objects[k][1], mask)


def test_it_is_a_sequence_that_workers_can_be_sent(tmp_path: Path) -> None:
    objects = CocoObjects(write_coco(tmp_path, annotation([SQUARE]), annotation([SQUARE], image_id=2)))
    with pytest.raises(IndexError):
        objects[2]
    assert [int(frame[0, 0, 1]) for frame, _ in pickle.loads(pickle.dumps(objects))] == [10, 60]


def test_what_is_no_coco_folder(tmp_path: Path) -> None:
    with pytest.raises(BadDataset, match=r"not a COCO folder with this split: .*instances_val2017\.json not found"):
        CocoObjects(tmp_path, "val2017")
    root = write_coco(tmp_path, annotation([SQUARE]), annotation([SQUARE], image_id=2))
    (root / "train2017/b.jpg").unlink()
    with pytest.raises(BadDataset, match=r"train2017 lacks 1 photographs that .* names: b\.jpg"):
        CocoObjects(root)
    path = root / "annotations/instances_train2017.json"
    for text in (
        "{",
        "[]",
        '{"images": []}',
        '{"images": [], "annotations": [{"image_id": 1, "segmentation": [[1]]}]}',
    ):
        path.write_text(text)
        with pytest.raises(BadDataset, match=r"instances_train2017\.json is not in the format of COCO instances"):
            CocoObjects(root)


@pytest.mark.parametrize(
    "corner", ["1e9", "-1e9", "NaN", "1e30", "-Infinity", "1" + "0" * 400, '"7"', "null", "true", "[]"]
)
def test_a_polygon_that_native_code_cannot_walk_along(tmp_path: Path, corner: str) -> None:
    """pycocotools does not check numbers: these lead to segmentation faults, gigabytes, or a wrong mask."""
    path = write_coco(tmp_path, annotation([[*SQUARE[:-1], 4711]])) / "annotations/instances_train2017.json"
    path.write_text(path.read_text().replace("4711", corner))
    with pytest.raises(BadDataset, match=r"annotation 7 of a\.jpg .*a corner at") as caught:
        CocoObjects(tmp_path)
    assert len(str(caught.value)) < 300


def test_a_polygon_that_leads_out_of_the_picture_is_cut(tmp_path: Path) -> None:
    _, mask = CocoObjects(write_coco(tmp_path, annotation([[-50, -50, 1000, -50, 1000, 1000, -50, 1000]])))[0]
    assert mask.all()


@pytest.mark.parametrize(
    "counts",
    [[0, HEIGHT * WIDTH + 1], [HEIGHT * WIDTH - 1], [-5, HEIGHT * WIDTH + 5], [0.0, HEIGHT * WIDTH], [2**40], [True],
     "", "PPYo1", "PPYo12", "o" * 50, "~~~", "é", "0ooooooooooN"],
)  # fmt: skip
def test_run_lengths_that_do_not_fill_the_picture(tmp_path: Path, counts: Any) -> None:
    with pytest.raises(BadDataset, match=r"annotation 7 of a\.jpg .*its run lengths"):
        CocoObjects(write_coco(tmp_path, annotation({"size": [HEIGHT, WIDTH], "counts": counts})))


def test_any_packed_run_lengths_are_accepted(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    masks = [random.random((HEIGHT, WIDTH)) < share for share in (0.1, 0.5, 0.9, 2)]
    masks += [np.roll(square(), 40 * k) for k in range(9)]
    objects = CocoObjects(write_coco(tmp_path, *(annotation(compressed(mask)) for mask in masks)))
    for k, mask in enumerate(masks):
        np.testing.assert_array_equal(objects[k][1], mask)


@pytest.mark.parametrize(("height", "width"), [(10**9, 10**9), (0, 30), (-20, 30), ("20", 30), (20.0, 30), (20, None)])
def test_a_size_that_no_picture_has(tmp_path: Path, height: Any, width: Any) -> None:
    path = write_coco(tmp_path, annotation([SQUARE])) / "annotations/instances_train2017.json"
    content = json.loads(path.read_text())
    content["images"][0].update(height=height, width=width)
    path.write_text(json.dumps(content))
    with pytest.raises(BadDataset, match=r"annotation 7 of a\.jpg"):
        CocoObjects(tmp_path)


def test_photographs_in_subfolders(tmp_path: Path) -> None:
    root = write_coco(tmp_path, annotation([SQUARE]))
    path = root / "annotations/instances_train2017.json"
    path.write_text(path.read_text().replace("a.jpg", "s1/a.jpg"))
    with pytest.raises(BadDataset, match=r"lacks 1 photographs .*: s1/a\.jpg"):
        CocoObjects(root)
    (root / "train2017/s1").mkdir()
    (root / "train2017/a.jpg").rename(root / "train2017/s1/a.jpg")
    np.testing.assert_array_equal(CocoObjects(root)[0][1], square())


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_masks_drawn_on_the_stored_photograph_are_turned_with_it(tmp_path: Path, orientation: int) -> None:
    """COCO's tools ignore EXIF. The mask must still cover the bright part of the photograph."""
    root = write_coco(tmp_path, annotation([SQUARE]))
    exif = Image.Exif()
    exif[0x112] = orientation
    Image.fromarray(square().astype(np.uint8) * 255).save(root / "train2017/a.jpg", exif=exif, quality=100)
    frame, mask = CocoObjects(root)[0]
    assert frame.shape[:2] == mask.shape == (WIDTH, HEIGHT)
    np.testing.assert_array_equal(mask, frame[..., 0] > 127)


@pytest.mark.parametrize(
    "segmentation", [[[0, 0, 9, 9]], [[1, 2, 3, 4, 5, 6, 7]], compressed(square()[:9]), {"size": [HEIGHT, WIDTH]}]
)
def test_a_segmentation_that_cannot_be_right(tmp_path: Path, segmentation: Any) -> None:
    with pytest.raises(BadDataset, match=r"annotation 7 of a\.jpg .* run lengths of 30 wide and 20 high"):
        CocoObjects(write_coco(tmp_path, annotation(segmentation)))


def test_a_photograph_that_is_another(tmp_path: Path) -> None:
    objects = CocoObjects(write_coco(tmp_path, annotation([SQUARE])))
    Image.new("RGB", (WIDTH + 1, HEIGHT)).save(tmp_path / "train2017/a.jpg")
    for read in (lambda: objects[0], lambda: CocoObjects(tmp_path)):  # Before training, not hours later.
        with pytest.raises(BadDataset, match=r"a\.jpg is 31 wide and 20 high, its annotations are for one 30 wide"):
            read()
    (tmp_path / "train2017/a.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(BadVideo, match=r"a\.jpg cannot be read"):
        objects[0]


def test_without_pycocotools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(MissingExtra, match=r"pip install 'vos-shared\[coco\]'"):
        CocoObjects(write_coco(tmp_path, annotation([SQUARE])))
