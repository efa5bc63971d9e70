"""DAVIS folders: sequences are found, all that is missing is listed, prompts show no more than they may."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from vos_shared.datasets import davis2016, davis2017, load_dataset
from vos_shared.datasets.sequence import VideoSequence
from vos_shared.errors import BadDataset, BadMask
from vos_shared.masks import ids_of, write_mask
from vos_shared.video import Video

SIZE = (6, 8)

Mask = npt.NDArray[np.uint8]


def add_sequence(root: Path, name: str, masks: list[Mask], resolution: str = "480p") -> None:
    frames, annotations = root / "JPEGImages" / resolution / name, root / "Annotations" / resolution / name
    frames.mkdir(parents=True)
    annotations.mkdir(parents=True)
    for t, mask in enumerate(masks):
        Image.fromarray(np.zeros((*mask.shape, 3), np.uint8)).save(frames / f"{t:05d}.jpg")
        write_mask(annotations / f"{t:05d}.png", mask)


def add_list(root: Path, names: list[str], year: str = "2017", split: str = "val") -> None:
    (root / "ImageSets" / year).mkdir(parents=True, exist_ok=True)
    (root / "ImageSets" / year / f"{split}.txt").write_text("\n".join(names) + "\n")


def mask_of(*ids: int) -> Mask:
    mask = np.zeros(SIZE, dtype=np.uint8)
    for k in ids:
        mask[k % SIZE[0]] = k
    return mask


def mask_in(sequence: VideoSequence, frame_name: str = "00000") -> Mask:
    mask = sequence.annotation(frame_name)
    assert mask is not None
    return mask


@pytest.fixture
def root(tmp_path: Path) -> Path:
    add_sequence(tmp_path, "bear", [mask_of(1)] * 3)
    add_sequence(tmp_path, "two-dogs", [mask_of(1, 2)] * 2)
    add_list(tmp_path, ["bear", "two-dogs"])
    return tmp_path


def test_sequences_come_in_the_order_of_the_list(root: Path) -> None:
    add_list(root, ["two-dogs", "", "bear  "])
    assert [sequence.name for sequence in davis2017(root)] == ["two-dogs", "bear"]


def test_2017_keeps_objects_and_2016_joins_them(root: Path) -> None:
    assert [ids_of(mask_in(sequence)) for sequence in davis2017(root)] == [[1], [1, 2]]
    assert [ids_of(mask_in(sequence)) for sequence in davis2016(root)] == [[1], [1]]
    assert np.array_equal(mask_in(davis2016(root)[1]), np.minimum(mask_in(davis2017(root)[1]), 1))


def test_2016_has_a_list_of_its_own(root: Path) -> None:
    add_list(root, ["bear"], year="2016")
    assert [sequence.name for sequence in davis2016(root)] == ["bear"]
    assert len(davis2017(root)) == 2


def test_lists_of_the_first_release_name_frames_and_masks(root: Path) -> None:
    lines = [
        f"/JPEGImages/480p/{name}/{t:05d}.jpg /Annotations/480p/{name}/{t:05d}.png"
        for name in ("two-dogs", "bear")
        for t in range(2)
    ]
    add_list(root, lines, year="480p")
    assert [sequence.name for sequence in davis2016(root)] == ["two-dogs", "bear"]


def test_split_may_be_a_file_or_names(root: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("two-dogs\n")
    assert [sequence.name for sequence in davis2017(root, tmp_path / "mine.txt")] == ["two-dogs"]
    assert [sequence.name for sequence in davis2017(root, ["bear"])] == ["bear"]
    assert [sequence.name for sequence in load_dataset("davis2017", root, sequences=["two-dogs"])] == ["two-dogs"]


def test_any_resolution_folder(tmp_path: Path) -> None:
    add_list(tmp_path, ["bear"])
    add_sequence(tmp_path, "bear", [mask_of(1)], "240p")
    assert davis2017(tmp_path)[0].video.size == SIZE
    add_sequence(tmp_path, "bear", [np.ones((4, 4), np.uint8)], "1080p")
    with pytest.raises(BadDataset, match="holds 1080p, 240p; choose one"):
        davis2017(tmp_path)
    assert davis2017(tmp_path, resolution="1080p")[0].video.size == (4, 4)
    add_sequence(tmp_path, "bear", [np.ones((5, 5), np.uint8)], "480p")
    assert davis2017(tmp_path)[0].video.size == (5, 5)


def test_hidden_folders_are_no_resolutions_and_several_are_a_choice(tmp_path: Path) -> None:
    add_sequence(tmp_path, "bear", [mask_of(1)] * 3, "240p")
    add_list(tmp_path, ["bear"])
    (tmp_path / "JPEGImages" / ".ipynb_checkpoints").mkdir()
    assert [sequence.name for sequence in davis2017(tmp_path)] == ["bear"]
    (tmp_path / "JPEGImages" / "1080p").mkdir()
    with pytest.raises(BadDataset, match="1080p, 240p; choose one with --resolution"):
        davis2017(tmp_path)


def test_lists_that_begin_with_a_byte_order_mark(root: Path) -> None:
    path = root / "ImageSets" / "2017" / "val.txt"
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert [sequence.name for sequence in davis2017(root)] == ["bear", "two-dogs"]


def test_unsupervised_reads_its_own_annotations(root: Path) -> None:
    with pytest.raises(BadDataset, match="lacks Annotations_unsupervised"):
        davis2017(root, task="unsupervised")
    (root / "Annotations").rename(root / "Annotations_unsupervised")
    assert len(davis2017(root, task="unsupervised")) == 2


def test_everything_missing_is_listed_at_once(root: Path) -> None:
    add_list(root, ["bear", "camel", "two-dogs", "empty"])
    (root / "Annotations" / "480p" / "bear" / "00000.png").unlink()
    for mask in (root / "Annotations" / "480p" / "two-dogs").iterdir():
        mask.unlink()
    (root / "JPEGImages" / "480p" / "empty").mkdir()
    with pytest.raises(BadDataset) as caught:
        davis2017(root)
    for lack in (
        "the mask of the first frame of bear",
        "frames and masks of camel",
        "masks of camel",
        "masks of two-dogs",
        "frames of empty",
    ):
        assert lack in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_davis_folder(tmp_path: Path, root: Path) -> None:
    for where, split, says in [
        (tmp_path / "nowhere", "val", "no such folder: .*nowhere"),
        (root / "ImageSets", "val", "lacks JPEGImages and Annotations"),
        (root, "test-dev", r"no list of sequences for split test-dev: .*test-dev\.txt.* there is .*val\.txt"),
        (root, [], "names no sequence"),
    ]:
        with pytest.raises(BadDataset, match=says):
            davis2017(where, split)
    with pytest.raises(BadDataset, match="no data set is called 'davis'; known are davis2016, davis2017"):
        load_dataset("davis", root)
    with pytest.raises(BadDataset, match="lacks JPEGImages/1080p and Annotations/1080p"):
        davis2017(root, resolution="1080p")
    with pytest.raises(BadDataset, match="does not hold camel; it holds bear, two-dogs"):
        davis2017(root, sequences=["camel"])


@pytest.mark.parametrize("name", ["..", "../bear", "a/b", "/etc", "a\\b", "bear/.."])
def test_a_sequence_name_cannot_lead_out_of_the_folder(root: Path, name: str) -> None:
    add_list(root, ["bear", name])
    with pytest.raises(BadDataset, match="a sequence is a folder name, not a path"):
        davis2017(root)
    with pytest.raises(BadDataset, match="a sequence is a folder name, not a path"):
        davis2017(root, ["bear"], sequences=[name])


def test_mask_of_another_size_than_the_frames(root: Path) -> None:
    write_mask(root / "Annotations/480p/bear/00001.png", np.ones((5, 9), np.uint8))
    sequence = davis2017(root)[0]
    with pytest.raises(BadMask, match=r"00001\.png is 9 wide and 5 high, the frames of bear are 8 wide and 6 high"):
        sequence.annotation("00001")
    with pytest.raises(BadMask, match=r"00001\.png"):
        list(sequence.prompts())


def test_some_frames_may_lack_masks(root: Path) -> None:
    (root / "Annotations/480p/bear/00001.png").unlink()
    sequence = davis2017(root)[0]
    assert sequence.annotation("00001") is None
    assert [name for name, _ in sequence.prompts()] == ["00000", "00001", "00002"]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(masks=arrays(np.uint8, (4, *SIZE), elements=st.sampled_from([0, 1, 2, 3, 255])))
def test_each_object_is_prompted_once_where_it_first_appears(
    tmp_path_factory: pytest.TempPathFactory, masks: Mask
) -> None:
    folder = tmp_path_factory.mktemp("prompts")
    files = {f"{t:05d}": folder / f"{t:05d}.png" for t in range(len(masks))}
    for path, mask in zip(files.values(), masks, strict=True):
        write_mask(path, mask)
    sequence = VideoSequence("made-up", Video.open(np.zeros((*masks.shape, 3), np.uint8)), files)
    prompted: list[int] = []
    for t, (name, prompt) in enumerate(sequence.prompts()):
        assert name == f"{t:05d}"
        if prompt is None:
            assert set(ids_of(masks[t])) <= set(prompted)
            continue
        new = ids_of(prompt)
        assert new
        assert not set(new) & set(prompted)
        prompted += new
        assert np.array_equal(prompt, np.where(np.isin(masks[t], new), masks[t], 0))
    assert sorted(prompted) == ids_of(masks.reshape(-1, SIZE[1]))


@pytest.mark.skipif("VOS_DATA" not in os.environ, reason="VOS_DATA is not set")
@pytest.mark.parametrize(
    ("name", "folder", "split", "objects"),
    [
        ("davis2017", "davis2017-val-open", "val", {"blackswan": 1, "bmx-trees": 2, "car-shadow": 1, "dance-twirl": 1}),
        ("davis2016", "davis2017-val-open", "val", {"blackswan": 1, "bmx-trees": 1, "car-shadow": 1, "dance-twirl": 1}),
        ("davis2016", "davis2016-val-open", "val", {"horsejump-high": 1}),
        ("davis2017", "davis2017-240p", "val", {"dogs-jump": 3}),
    ],
)
def test_real_sequences(name: str, folder: str, split: str, objects: dict[str, int]) -> None:
    sequences = load_dataset(name, Path(os.environ["VOS_DATA"], folder), split)
    first = {sequence.name: len(ids_of(mask_in(sequence, sequence.frame_names[0]))) for sequence in sequences}
    assert first == objects
    for sequence in sequences:
        assert len(sequence.annotations) == len(sequence.video)
        assert next(iter(sequence.video)).shape == (*sequence.video.size, 3)
