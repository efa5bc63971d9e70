"""YouTube-VOS folders: objects are prompted where meta.json says, and not before."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vos_shared.datasets import load_dataset, youtube_vos
from vos_shared.datasets.youtube_vos import read_meta, wanted_frames
from vos_shared.doctor import examine
from vos_shared.errors import BadDataset
from vos_shared.inputs import InputArguments, inputs_fingerprint
from vos_shared.masks import ids_of, write_mask
from vos_shared.method import ObjectMask, Supervision

SIZE = (8, 10)
FRAMES = ("00000", "00005", "00010", "00015")
META: dict[str, dict[int, tuple[str, ...]]] = {
    "cat": {1: FRAMES[:3], 4: FRAMES[1:]},
    "dog": {2: FRAMES[1:3]},
}


def mask_of(*ids: int) -> ObjectMask:
    mask = np.zeros(SIZE, np.uint8)
    for k in ids:
        mask[k] = k
    return mask


def write_meta(root: Path, videos: object) -> None:
    (root / "valid").mkdir(parents=True, exist_ok=True)
    (root / "valid" / "meta.json").write_text(json.dumps({"videos": videos}))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Object 4 of cat is already in the first mask, and object 7 is not listed."""
    root = tmp_path / "YTVOS"
    as_json = {
        video: {"objects": {str(k): {"category": "pet", "frames": list(frames)} for k, frames in objects.items()}}
        for video, objects in META.items()
    }
    write_meta(root, as_json)
    for video in META:
        for kind in ("JPEGImages", "Annotations"):
            (root / "valid" / kind / video).mkdir(parents=True)
        for frame in FRAMES:
            Image.new("RGB", SIZE[::-1]).save(root / "valid" / "JPEGImages" / video / f"{frame}.jpg")
    masks = root / "valid" / "Annotations"
    write_mask(masks / "cat" / "00000.png", mask_of(1, 4, 7))
    write_mask(masks / "cat" / "00005.png", mask_of(1, 4))
    write_mask(masks / "dog" / "00005.png", mask_of(2))
    return root


def test_meta_lists_the_frames_of_each_object(root: Path) -> None:
    meta = read_meta(root)
    assert meta == META
    assert wanted_frames(meta["cat"]) == FRAMES
    assert wanted_frames(meta["dog"]) == ("00005", "00010")


def test_objects_are_prompted_where_meta_lets_them_enter(root: Path) -> None:
    cat, dog = load_dataset("youtube-vos", root)
    prompts = dict(cat.prompts())
    assert list(prompts) == list(FRAMES)
    np.testing.assert_array_equal(prompts["00000"], mask_of(1))
    np.testing.assert_array_equal(prompts["00005"], mask_of(4))
    assert prompts["00010"] is prompts["00015"] is None
    assert cat.object_ids() == [1, 4]
    assert {name: prompt is not None for name, prompt in dog.prompts()} == {name: name == "00005" for name in FRAMES}


def test_an_object_that_its_first_mask_lacks_enters_with_the_next(root: Path) -> None:
    write_mask(root / "valid/Annotations/cat/00005.png", mask_of(1))
    write_mask(root / "valid/Annotations/cat/00010.png", mask_of(1, 4))
    prompts = dict(youtube_vos(root, sequences=["cat"])[0].prompts())
    assert prompts["00005"] is None
    np.testing.assert_array_equal(prompts["00010"], mask_of(4))


def test_everything_missing_is_listed_at_once(root: Path) -> None:
    valid = root / "valid"
    (valid / "Annotations/cat/00005.png").unlink()
    (valid / "JPEGImages/cat/00010.jpg").unlink()
    for frame in (valid / "JPEGImages/dog").iterdir():
        frame.unlink()
    with pytest.raises(BadDataset) as caught:
        youtube_vos(root)
    text = str(caught.value)
    for lack in ("frames 00010 of cat", "masks of cat in which objects enter: 00005.png", "frames of dog"):
        assert lack in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("videos", "says"),
    [
        ([], "is not the meta.json of YouTube-VOS"),
        ({"cat": {"objects": {"one": {"frames": ["00000"]}}}}, "is not the meta.json of YouTube-VOS"),
        ({"cat": {}}, "KeyError: 'objects'"),
        ({"cat": {"objects": {"255": {"frames": ["00000"]}}}}, "has object 255; there must be some, with ids 1 to 254"),
        ({"cat": {"objects": {"1": {"frames": []}}}}, "has object 1; .* at least one frame each"),
        ({"cat": {"objects": {}}}, "has object none"),
        ({}, "names no sequence"),
        ({"../cat": {"objects": {"1": {"frames": ["00000"]}}}}, "a sequence is a folder name, not a path"),
        ({"cat": {"objects": {"1": {"frames": ["../0"]}}}}, "a frame is a file name without suffix, not a path"),
    ],
)
def test_meta_of_another_form(root: Path, videos: object, says: str) -> None:
    write_meta(root, videos)
    with pytest.raises(BadDataset, match=says):
        youtube_vos(root)


def test_what_is_no_youtube_vos_folder(root: Path, tmp_path: Path) -> None:
    with pytest.raises(BadDataset, match=r"not a YouTube-VOS folder with a split train: .*meta\.json not found"):
        youtube_vos(root, "train")
    (root / "valid/meta.json").write_text("{")
    with pytest.raises(BadDataset, match="download it again"):
        youtube_vos(root)
    with pytest.raises(BadDataset, match="leave out resolution 480p"):
        load_dataset("youtube-vos", root, resolution="480p")
    with pytest.raises(BadDataset, match=r"meta\.json not found"):
        InputArguments(source=str(tmp_path / "nowhere"), dataset="youtube-vos").load()


def test_the_command_line_takes_the_default_split(root: Path) -> None:
    arguments = InputArguments(source=str(root), dataset="youtube-vos", sequences=("dog",))
    assert [sequence.name for sequence in arguments.load()] == ["dog"]


def test_results_are_made_anew_where_an_object_enters_elsewhere(root: Path) -> None:
    before = inputs_fingerprint(youtube_vos(root)[0], Supervision.FIRST_FRAME)
    write_meta(root, {"cat": {"objects": {"1": {"frames": ["00000"]}}}})
    assert inputs_fingerprint(youtube_vos(root)[0], Supervision.FIRST_FRAME) != before


def test_doctor_looks_at_the_whole_or_at_one_split(root: Path) -> None:
    for folder in (root, root / "valid"):
        report = examine(folder)
        assert report.rows == [("valid/cat", "4", "10x8", "2", "3"), ("valid/dog", "4", "10x8", "1", "1")]
        assert report.problems == []
        assert report.notes == ["cat: masks hold object 7, which meta.json does not list; it does not count"]
    (root / "valid/Annotations/dog/00005.png").rename(root / "valid/Annotations/dog/00007.png")
    (root / "valid/JPEGImages/cat/00015.jpg").write_bytes(b"")
    empty, missing = examine(root).problems
    assert "00015.jpg cannot be read" in empty
    assert "frames 00007 of dog, which have masks" in missing
    assert "masks of dog in which objects enter: 00005.png" in missing


@pytest.mark.skipif("VOS_PARITY" not in os.environ, reason="VOS_PARITY is not set")
@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_folder_that_the_official_code_reads(split: str) -> None:
    root = Path(os.environ["VOS_PARITY"], "osmn/e2e/YTVOS")
    first = {
        sequence.name: {name: ids_of(prompt) for name, prompt in sequence.prompts() if prompt is not None}
        for sequence in youtube_vos(root, split)
    }
    assert first == {"vid0a": {"00000": [1], "00010": [2]}, "vid1b": {"00000": [1]}}
