"""Data sets of images, SegTrack v2 and FBMS-59: content, missing files, and ids of masks."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from vos_shared.datasets import (
    DATASETS,
    fbms59,
    load_dataset,
    object_discovery,
    saliency,
    segtrack_v2,
    voc2012,
    youtube_objects_boxes,
)
from vos_shared.datasets.youtube_objects_boxes import read_boxes
from vos_shared.errors import BadDataset, BadMask
from vos_shared.inputs import inputs_fingerprint
from vos_shared.masks import write_mask
from vos_shared.method import Supervision

Array = npt.NDArray[Any]


def save(path: Path, values: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def square(at: int, value: int = 255) -> Array:
    mask = np.zeros((20, 30), np.uint8)
    mask[at : at + 5, at : at + 5] = value
    return mask


def frame(path: Path) -> None:
    save(path, np.full((20, 30, 3), 90, np.uint8))


@pytest.mark.parametrize("folders", [("images", "masks"), ("DUTS-TE-Image", "DUTS-TE-Mask")])
def test_saliency_images_are_sequences_of_one_frame(tmp_path: Path, folders: tuple[str, str]) -> None:
    for name in ("b", "a_2", "10"):
        frame(tmp_path / folders[0] / f"{name}.jpg")
        save(tmp_path / folders[1] / f"{name}.png", np.where(square(3) > 0, np.uint8(129), np.uint8(128)))
    found = saliency(tmp_path)
    assert [sequence.name for sequence in found] == ["10", "a_2", "b"]
    assert list(found[0].frame_names) == ["10"]
    mask = found[0].annotation("10")
    assert mask is not None
    assert (mask == (square(3) > 0)).all()
    assert [s.name for s in saliency(tmp_path, sequences=["b"])] == ["b"]


def test_saliency_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(BadDataset, match="not a saliency data set; it must hold folders"):
        saliency(tmp_path)
    frame(tmp_path / "images/a.jpg")
    frame(tmp_path / "images/b.jpg")
    save(tmp_path / "masks/b.png", square(2))
    save(tmp_path / "masks/c.png", square(2))
    with pytest.raises(BadDataset, match=r"2 images; 1 image \(a\) without a mask and 1 mask \(c\) without an image"):
        saliency(tmp_path)


def test_a_mask_of_ones_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    frame(tmp_path / "images/a.jpg")
    save(tmp_path / "masks/a.png", square(2, value=1))
    with pytest.raises(BadMask, match="largest value is 1"):
        saliency(tmp_path)[0].annotation("a")


def segtrack(root: Path) -> Path:
    for video, objects in (("one", None), ("two", 2)):
        for t in range(3):
            frame(root / "JPEGImages" / video / f"{video}_{t:05d}.bmp")
            if objects is None:
                save(root / "GroundTruth" / video / f"{video}_{t:05d}.png", square(t))
            for k in range(1, (objects or 0) + 1):
                save(root / "GroundTruth" / video / str(k) / f"{video}_{t:05d}.png", square(6 * k + t))
    return root


def test_segtrack_merges_the_masks_of_objects(tmp_path: Path) -> None:
    one, two = segtrack_v2(segtrack(tmp_path))
    assert len(one.annotations) == len(two.annotations) == 3
    mask = two.annotation("two_00001")
    assert mask is not None
    np.testing.assert_array_equal(mask, np.maximum(square(7, 1), square(13, 2)))
    assert two.object_ids() == [1, 2]
    assert one.object_ids() == [1]


def test_a_changed_mask_of_any_object_changes_the_fingerprint(tmp_path: Path) -> None:
    before = inputs_fingerprint(segtrack_v2(segtrack(tmp_path))[1], Supervision.FIRST_FRAME)
    save(tmp_path / "GroundTruth/two/2/two_00000.png", square(0))
    assert inputs_fingerprint(segtrack_v2(tmp_path)[1], Supervision.FIRST_FRAME) != before


def test_segtrack_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(BadDataset, match="lacks JPEGImages and GroundTruth"):
        segtrack_v2(tmp_path)
    segtrack(tmp_path)
    (tmp_path / "GroundTruth/two/1/two_00002.png").unlink()
    with pytest.raises(BadDataset, match="masks of two_00002 of two"):
        segtrack_v2(tmp_path)
    (tmp_path / "GroundTruth/two/2/two_00001.png").unlink()
    save(tmp_path / "GroundTruth/two/1/two_00002.png", square(0))
    with pytest.raises(BadMask, match="lacks the mask of frame two_00001"):
        segtrack_v2(tmp_path)[1].annotation("two_00001")


def coloured(*objects: tuple[int, tuple[int, int, int]]) -> Array:
    image = np.full((20, 30, 3), 255, np.uint8)
    for at, colour in objects:
        image[square(at) > 0] = colour
    return image


def fbms(root: Path) -> Path:
    for t in range(1, 7):
        frame(root / f"Testset/cars1/cars1_{t:02d}.jpg")
    red, blue = (200, 0, 0), (0, 0, 200)
    save(root / "Testset/cars1/GroundTruth/cars1_0001_gt.ppm", coloured((2, red)))
    save(root / "Testset/cars1/GroundTruth/cars1_0005_gt.ppm", coloured((2, red), (10, blue)))
    save(root / "Testset/cars1/GroundTruth/cars1_0005_PROB_gt.ppm", coloured((0, (9, 9, 9))))
    return root


def test_fbms_numbers_objects_by_colour_over_the_video(tmp_path: Path) -> None:
    (video,) = fbms59(fbms(tmp_path))
    assert list(video.annotations) == ["cars1_01", "cars1_05"]
    first, second = video.annotation("cars1_01"), video.annotation("cars1_05")
    assert first is not None
    assert second is not None
    np.testing.assert_array_equal(first, square(2, 2))
    np.testing.assert_array_equal(second, np.maximum(square(2, 2), square(10, 1)))


@pytest.mark.parametrize(("suffix", "name"), [("pgm", "tennis003"), ("png", "003_gt")])
def test_fbms_reads_grey_masks(tmp_path: Path, suffix: str, name: str) -> None:
    for t in range(1, 5):
        frame(tmp_path / f"Testset/tennis/tennis{t:03d}.jpg")
    save(tmp_path / f"Testset/tennis/GroundTruth/{name}.{suffix}", square(4, 255))
    (video,) = fbms59(tmp_path)
    mask = video.annotation("tennis003")
    assert mask is not None
    np.testing.assert_array_equal(mask, square(4, 1))


def test_fbms_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(BadDataset, match="no folder Testset"):
        fbms59(tmp_path)
    frame(tmp_path / "Testset/dog/dog_01.jpg")
    with pytest.raises(BadDataset, match="masks of dog"):
        fbms59(tmp_path)


def voc(root: Path) -> Path:
    for name in ("2007_01", "2007_02"):
        frame(root / f"JPEGImages/{name}.jpg")
        (root / "SegmentationClass").mkdir(exist_ok=True)
        mask = square(3, 15)
        mask[0] = 255
        write_mask(root / f"SegmentationClass/{name}.png", mask)
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    (root / "ImageSets/Segmentation/val.txt").write_text("2007_02\n2007_01\n")
    return root


def test_voc_has_class_ids_and_void(tmp_path: Path) -> None:
    found = voc2012(voc(tmp_path))
    assert [sequence.name for sequence in found] == ["2007_02", "2007_01"]
    mask = found[0].annotation("2007_02")
    assert mask is not None
    assert set(np.unique(mask)) == {0, 15, 255}
    with pytest.raises(BadDataset, match="no list of images"):
        voc2012(tmp_path, "test")
    (tmp_path / "SegmentationClass/2007_01.png").unlink()
    with pytest.raises(BadDataset, match=r"lacks 1 mask \(2007_01\)"):
        voc2012(tmp_path)


def test_object_discovery_takes_images_of_the_classes(tmp_path: Path) -> None:
    for name in ("0001", "0002"):
        frame(tmp_path / f"Data/Car100/{name}.jpg")
        frame(tmp_path / f"Data/Horse100/{name}.jpg")
    save(tmp_path / "Data/Car100/GroundTruth/0001.png", square(3))
    save(tmp_path / "Data/Horse100/GroundTruth/0001.png", square(3))
    assert [s.name for s in object_discovery(tmp_path, "Car100")] == ["Car100_0001", "Car100_0002"]
    assert len(object_discovery(tmp_path)) == 4
    with pytest.raises(BadDataset, match="none of Airplane100"):
        object_discovery(tmp_path, "Airplane100")


def write_boxes(root: Path, *rows: tuple[object, ...]) -> None:
    with (root / "boxes.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "xmin", "ymin", "xmax", "ymax"), *rows])


def test_boxes_are_read_with_pixels_from_zero(tmp_path: Path) -> None:
    frame(tmp_path / "dog/v1/0001.jpg")
    write_boxes(tmp_path, ("dog/v1/0001.jpg", 1, 2, 10, 20), ("dog/v1/0001.jpg", 5, 5, 5, 5))
    assert [s.name for s in youtube_objects_boxes(tmp_path)] == ["dog-v1-0001"]
    assert read_boxes(tmp_path) == {"dog-v1-0001": ("dog", [(1, 0, 20, 10), (4, 4, 5, 5)])}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("dog/1.jpg", 5, 5, 4, 9), "is not a box"),
        (("dog/1.jpg", "x", 5, 9, 9), "not a frame and four numbers"),
        (("../1.jpg", 1, 1, 9, 9), "not <class>/<frame>"),
        (("dog/2.jpg", 1, 1, 9, 9), r"lacks 1 frame \(dog/2.jpg\)"),
    ],
)
def test_bad_boxes_are_one_clear_line(tmp_path: Path, row: tuple[object, ...], message: str) -> None:
    write_boxes(tmp_path, row)
    with pytest.raises(BadDataset, match=message):
        youtube_objects_boxes(tmp_path)


@pytest.mark.parametrize("name", ["segtrack-v2", "fbms59", "saliency", "voc2012", "object-discovery"])
def test_loaders_are_known_by_name_and_have_no_resolutions(tmp_path: Path, name: str) -> None:
    assert name in DATASETS
    with pytest.raises(BadDataset, match=f"{name} has no resolution folders"):
        load_dataset(name, tmp_path, resolution="480p")
