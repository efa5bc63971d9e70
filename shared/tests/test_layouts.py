"""Layouts of data sets: the doctor reports a problem exactly when a command refuses the folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vos_shared.cli import Evaluate
from vos_shared.datasets import davis2017, load_dataset, youtube_vos
from vos_shared.doctor import examine
from vos_shared.errors import BadDataset, UserError
from vos_shared.inputs import InputArguments
from vos_shared.masks import read_mask, write_mask
from vos_shared.method import Method, Supervision
from vos_shared.overlay_video import write_overlay
from vos_shared.segment import SegmentArguments, run_segment
from vos_shared.submission import wanted_masks, write_submission

CAT_FRAMES, CAT_MASKS = Path("JPEGImages/480p/cat"), Path("Annotations/480p/cat")


def flat(root: Path) -> None:
    """MOSE and LVOS: no folders of resolutions, no lists."""
    for kind in ("JPEGImages", "Annotations"):
        for sequence in ("cat", "dog"):
            (root / kind / "480p" / sequence).rename(root / kind / sequence)
        (root / kind / "480p").rmdir()
    shutil.rmtree(root / "ImageSets")


def flat_with_thumbnails(root: Path) -> None:
    flat(root)
    (root / "JPEGImages/cat/@eaDir").mkdir()
    shutil.copy(root / "JPEGImages/cat/00000.jpg", root / "JPEGImages/cat/@eaDir/00000.jpg")


def flat_with_list(root: Path) -> None:
    flat(root)
    (root / "ImageSets").mkdir()
    (root / "ImageSets/val.txt").write_text("cat\n")


def upper(root: Path) -> None:
    for path in [*root.rglob("*.jpg"), *root.rglob("*.png")]:
        path.rename(path.with_suffix(path.suffix.upper()))


def jpeg(root: Path) -> None:
    for path in root.rglob("*.jpg"):
        path.rename(path.with_suffix(".jpeg"))


def byte_order_mark(root: Path) -> None:
    path = root / "ImageSets/2017/val.txt"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))


def hidden_files(root: Path) -> None:
    (root / CAT_MASKS / "._00000.png").write_bytes(b"\x00\x05\x16\x07")
    (root / CAT_FRAMES / "._00000.jpg").write_bytes(b"\x00\x05\x16\x07")


def listed_but_absent(root: Path) -> None:
    (root / "ImageSets/2017/val.txt").write_text("cat\ndog\nhorse\n")


def empty_list(root: Path) -> None:
    (root / "ImageSets/2017/val.txt").write_text("\n")


def mask_without_frame(root: Path) -> None:
    shutil.copy(root / CAT_MASKS / "00000.png", root / CAT_MASKS / "00099.png")


def no_first_mask(root: Path) -> None:
    (root / CAT_MASKS / "00000.png").unlink()


def no_masks(root: Path) -> None:
    shutil.rmtree(root / CAT_MASKS)


def no_frames(root: Path) -> None:
    shutil.rmtree(root / CAT_FRAMES)


def flat_no_masks(root: Path) -> None:
    flat(root)
    shutil.rmtree(root / "Annotations/dog")


def empty_masks(root: Path) -> None:
    for path in (root / CAT_MASKS).iterdir():
        write_mask(path, np.zeros_like(read_mask(path)))


def other_size(root: Path) -> None:
    write_mask(root / CAT_MASKS / "00002.png", np.ones((20, 28), np.uint8))


def damaged_mask(root: Path) -> None:
    (root / CAT_MASKS / "00003.png").write_bytes(b"\x89PNG\r\n\x1a\n")


def damaged_frame(root: Path) -> None:
    (root / CAT_FRAMES / "00003.jpg").write_bytes(b"\xff\xd8\xff")


def two_masks_of_a_frame(root: Path) -> None:
    shutil.copy(root / CAT_MASKS / "00001.png", root / CAT_MASKS / "00001.PNG")


def two_frames_of_a_name(root: Path) -> None:
    shutil.copy(root / CAT_FRAMES / "00001.jpg", root / CAT_FRAMES / "00001.jpeg")


READABLE = (flat, flat_with_list, upper, jpeg, byte_order_mark, hidden_files)
BROKEN = (
    listed_but_absent,
    empty_list,
    mask_without_frame,
    no_first_mask,
    no_masks,
    no_frames,
    flat_no_masks,
    empty_masks,
    other_size,
    damaged_mask,
    damaged_frame,
    two_masks_of_a_frame,
    two_frames_of_a_name,
)


def refusal(work: Callable[[], object]) -> str:
    says = ""
    try:
        work()
    except UserError as error:
        says = str(error)
    assert "\n" not in says
    return says


def segment(method: Method, source: Path, output: Path, dataset: str = "davis2017") -> None:
    run_segment(method, SegmentArguments(source=str(source), output=output, dataset=dataset, device="cpu"))


@pytest.mark.parametrize("change", READABLE, ids=lambda change: change.__name__)
def test_what_the_doctor_finds_sound_is_read(
    change: Callable[[Path], None], davis: Path, copying: Method, tmp_path: Path
) -> None:
    change(davis)
    assert examine(davis).problems == []
    segment(copying, davis, tmp_path / "out")
    there = 1 if change is flat_with_list else 2
    assert len(list((tmp_path / "out").glob("[a-z]*"))) == there
    Evaluate(root=davis, results=tmp_path / "out").run()


@pytest.mark.parametrize("change", BROKEN, ids=lambda change: change.__name__)
def test_what_a_command_refuses_is_a_problem(
    change: Callable[[Path], None], davis: Path, copying: Method, tmp_path: Path
) -> None:
    change(davis)
    assert refusal(lambda: segment(copying, davis, tmp_path / "out"))
    assert examine(davis).problems


def test_results_with_suffixes_in_capitals(davis: Path, tmp_path: Path) -> None:
    results = shutil.copytree(davis / "Annotations" / "480p", tmp_path / "results")
    upper(results)
    Evaluate(root=davis, results=results, json=tmp_path / "scores.json").run()
    assert json.loads((tmp_path / "scores.json").read_text())["summary"]["J-Mean"] == 1
    sequences = davis2017(davis)
    assert examine(results, sequences).problems == []
    assert write_submission("davis2017", wanted_masks("davis2017", davis), results, tmp_path / "a.zip") == 8
    write_overlay(sequences[0].video, results / "cat", tmp_path / "cat.mp4")


def test_methods_without_prompt_need_no_masks(davis: Path, copying: Method, tmp_path: Path) -> None:
    (davis / "Annotations").rename(davis / "Annotations_unsupervised")
    report = examine(davis)
    assert report.problems == []
    assert report.notes == ["no Annotations: for methods without prompt only"]
    segment(replace(copying, supervision=Supervision.NONE), davis, tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*/*.png"))) == 8
    Evaluate(dataset="davis2017-unsupervised", root=davis, results=davis / "Annotations_unsupervised/480p").run()
    for says in (
        refusal(lambda: segment(copying, davis, tmp_path / "prompted")),
        refusal(lambda: load_dataset("davis2017", davis)),
    ):
        assert "lacks Annotations" in says
    shutil.rmtree(davis / "Annotations_unsupervised")
    assert len(InputArguments(source=str(davis)).load(masks_required=False)) == 2
    assert "lacks Annotations" in examine(davis).problems[0]


def test_both_kinds_of_masks_are_examined(davis: Path) -> None:
    shutil.copytree(davis / "Annotations", davis / "Annotations_unsupervised")
    damaged_mask(davis)
    report = examine(davis)
    assert [row[0] for row in report.rows][2:] == [
        "Annotations_unsupervised/480p/cat",
        "Annotations_unsupervised/480p/dog",
    ]
    assert len(report.problems) == 1


def test_thumbnails_in_a_sequence_are_no_sequence(davis: Path) -> None:
    flat_with_thumbnails(davis)
    assert [sequence.name for sequence in davis2017(davis)] == ["cat", "dog"]


def test_a_resolution_where_there_are_none(davis: Path) -> None:
    flat(davis)
    with pytest.raises(BadDataset, match="no folders of resolutions; leave out resolution 480p"):
        davis2017(davis, resolution="480p")
    with pytest.raises(BadDataset, match=r"no list of sequences for split train: .* there is no list at all"):
        davis2017(davis, "train")


@pytest.fixture
def youtube(tmp_path: Path) -> Path:
    """One video of four frames; object 1 enters with the first, 2 with the second."""
    folder = tmp_path / "youtube" / "valid"
    for kind in ("JPEGImages", "Annotations"):
        (folder / kind / "cat").mkdir(parents=True)
    frames = [f"{t:05d}" for t in range(4)]
    for frame in frames:
        Image.new("RGB", (10, 8)).save(folder / "JPEGImages/cat" / f"{frame}.jpg")
    mask = np.zeros((8, 10), np.uint8)
    for k in (1, 2):
        mask[k] = k
        write_mask(folder / f"Annotations/cat/0000{k - 1}.png", mask)
    objects = {"1": {"frames": frames}, "2": {"frames": frames[1:]}}
    (folder / "meta.json").write_text(json.dumps({"videos": {"cat": {"objects": objects}}}))
    return folder.parent


def test_an_object_of_meta_that_no_mask_holds(youtube: Path, copying: Method, tmp_path: Path) -> None:
    path = youtube / "valid/Annotations/cat/00001.png"
    mask = read_mask(path)
    write_mask(path, np.where(mask == 2, np.uint8(0), mask))
    says = "cat: meta.json lists object 2 from 00001 on, but no mask from there on holds it"
    assert says in examine(youtube).problems[0]
    assert says in refusal(lambda: segment(copying, youtube, tmp_path / "out", "youtube-vos"))
    assert not (tmp_path / "out").exists(), "found before any work"
    assert says in refusal(lambda: wanted_masks("youtube-vos", youtube))
    with pytest.raises(BadDataset, match="lists object 2"):
        list(youtube_vos(youtube)[0].prompts())


def test_objects_that_are_late_or_not_listed_are_told(
    youtube: Path, copying: Method, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mask = read_mask(youtube / "valid/Annotations/cat/00001.png")
    write_mask(youtube / "valid/Annotations/cat/00002.png", mask)
    mask[mask == 2] = 0
    mask[5] = 3
    write_mask(youtube / "valid/Annotations/cat/00001.png", mask)
    notes = [
        "cat: masks hold object 3, which meta.json does not list; it does not count",
        "cat: object 2 is listed from 00001 on, and seen from 00002 on",
    ]
    report = examine(youtube)
    assert (report.problems, report.notes) == ([], notes)
    segment(copying, youtube, tmp_path / "out", "youtube-vos")
    assert capsys.readouterr().err.startswith("".join(f"note: {note}\n" for note in notes))
    assert np.unique(read_mask(tmp_path / "out/cat/00003.png")).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda valid: (valid / "JPEGImages/cat/00003.jpg").unlink(), "lacks frames 00003 of cat"),
        (lambda valid: (valid / "Annotations/cat/00001.png").unlink(), "in which objects enter: 00001.png"),
        (
            lambda valid: shutil.copy(valid / "Annotations/cat/00001.png", valid / "Annotations/cat/00009.png"),
            "lacks frames 00009 of cat, which have masks",
        ),
    ],
)
def test_promises_of_meta(
    spoil: Callable[[Path], object], says: str, youtube: Path, copying: Method, tmp_path: Path
) -> None:
    spoil(youtube / "valid")
    assert says in "".join(examine(youtube).problems)
    assert says in refusal(lambda: segment(copying, youtube, tmp_path / "out", "youtube-vos"))


def test_youtube_vos_without_meta_is_read_like_mose(youtube: Path, copying: Method, tmp_path: Path) -> None:
    (youtube / "valid/meta.json").unlink()
    with pytest.raises(BadDataset, match=r"meta\.json not found; give .*/valid as davis2017 to read it without"):
        youtube_vos(youtube)
    assert examine(youtube / "valid").problems == []
    with pytest.raises(UserError, match="give one of its folders valid"):
        examine(youtube)
    segment(copying, youtube / "valid", tmp_path / "out")
    assert np.unique(read_mask(tmp_path / "out/cat/00003.png")).tolist() == [0, 1, 2]


def test_long_lists_of_missing_names_are_cut(davis: Path) -> None:
    (davis / "ImageSets/2017/val.txt").write_text("\n".join(f"clip{i}" for i in range(50_000)))
    for says in (
        refusal(lambda: davis2017(davis)),
        refusal(lambda: davis2017(davis, sequences=[f"other{i}" for i in range(50_000)])),
        str(examine(davis)),
    ):
        assert "clip0" in says
        assert " more" in says
        assert len(says) < 10_000
    (davis / "ImageSets/2017/val.txt").write_text("x" * 100_000)
    assert len(refusal(lambda: davis2017(davis))) < 1000
