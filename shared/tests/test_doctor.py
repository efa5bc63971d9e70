from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vos_shared.datasets import davis2016, davis2017
from vos_shared.doctor import examine, examine_dataset
from vos_shared.errors import UserError
from vos_shared.masks import write_mask
from vos_shared.results import ResultsTree
from vos_shared.video_sources import frame_files

FRAMES, MASKS = Path("JPEGImages/480p"), Path("Annotations/480p")


def problems(folder: Path) -> str:
    return "\n".join(examine(folder).problems)


def test_a_sound_data_set_is_counted(davis: Path) -> None:
    report = examine(davis)
    assert report.rows == [("480p/cat", "5", "56x40", "5", "2"), ("480p/dog", "3", "56x40", "3", "1")]
    assert report.problems == []
    assert report.notes == []
    assert "no problems found" in str(report)


def test_what_is_broken_in_a_data_set_is_all_found(davis: Path) -> None:
    frame = davis / FRAMES / "cat" / "00003.jpg"
    frame.write_bytes(frame.read_bytes()[:300])
    Image.new("RGB", (56, 40), (1, 2, 3)).save(davis / MASKS / "cat" / "00001.png")
    write_mask(davis / MASKS / "cat" / "00002.png", np.ones((30, 56), np.uint8))
    (davis / MASKS / "dog" / "00000.png").unlink()
    (davis / FRAMES / "dog" / "notes.txt").touch()
    (davis / "ImageSets" / "2017" / "val.txt").write_text("cat\ndog\nhorse\n")
    found = problems(davis)
    for words in (
        "cat/00003.jpg cannot be read",
        "cat/00001.png has 1 different colours",
        "480p/cat: 00000 is 56 wide and 40 high, but not 00002",
        "2017/val.txt: ",
        "; the mask of the first frame of dog (",
        " lacks frames and masks of horse; ",
    ):
        assert words in found
    assert found.count("\n") == 3, found
    assert any("notes.txt does not belong here; it is not read" in note for note in examine(davis).notes)


def test_lists_of_the_first_release_name_frames_and_masks(davis: Path) -> None:
    lists = davis / "ImageSets" / "480p"
    lists.mkdir()
    pairs = [
        f"/JPEGImages/480p/{name}/{t:05d}.jpg /Annotations/480p/{name}/{t:05d}.png "
        for name, count in (("cat", 5), ("horse", 2))
        for t in range(count)
    ]
    (lists / "val.txt").write_text("\n".join(pairs[:5]) + "\n")
    assert [sequence.name for sequence in davis2016(davis)] == ["cat"]
    assert problems(davis) == ""
    (lists / "val.txt").write_text("\n".join(pairs) + "\n")
    assert problems(davis).startswith(f"480p/val.txt: {davis} lacks frames and masks of horse")


def test_a_folder_is_listed_no_oftener_for_more_files(davis: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed: list[str] = []

    def counted(folder: Path) -> list[Path]:
        listed.append(folder.name)
        return frame_files(folder)

    monkeypatch.setattr("vos_shared.doctor.data_sets.frame_files", counted)
    examine(davis)
    assert listed.count("cat") == listed.count("dog") == 1


def test_frames_without_masks_and_masks_without_frames(davis: Path) -> None:
    for path in (davis / MASKS / "dog").iterdir():
        path.unlink()
    for path in (davis / FRAMES / "cat").iterdir():
        path.unlink()
    (problem,) = problems(davis).splitlines()
    assert f"lacks frames of cat ({davis / FRAMES / 'cat'}); masks of dog ({davis / MASKS / 'dog'})" in problem


def test_a_data_set_without_any_object(davis: Path) -> None:
    for path in (davis / MASKS / "dog").iterdir():
        write_mask(path, np.zeros((40, 56), np.uint8))
    assert problems(davis) == "480p/dog: no mask holds any object"


def test_black_and_white_masks_and_gaps_are_no_problems(davis: Path) -> None:
    for path in (davis / MASKS / "dog").iterdir():
        Image.fromarray(np.where(np.eye(40, 56) > 0, 255, 0).astype(np.uint8)).save(path)
    for t in (1, 2, 4):
        (davis / MASKS / "cat" / f"{t:05d}.png").unlink()
    report = examine(davis)
    assert report.problems == []
    assert "480p/dog: masks of 0 and 255; read them as davis2016" in report.notes
    assert "480p/cat: 3 frames without mask: 00001-00002, 00004" in report.notes


def test_results_are_compared_with_the_data_set(davis: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with ResultsTree(out).writer("cat", ["00000", "00001", "00004", "00009"]) as writer:
        for t, shape in ((0, (40, 56)), (1, (20, 28)), (4, (40, 56)), (9, (20, 28))):
            writer.write(f"{t:05d}", np.full(shape, 3, np.uint8))
    report = examine(out, davis2017(davis))
    assert report.rows[0][:4] == ("cat", "4", "56x40, 28x20", "1")
    assert report.rows[0][4] != "-"
    assert report.problems == [
        "cat: 00000 is 56 wide and 40 high, but not 00001, 00009",
        "cat lacks 2 of 5 masks: 00002-00003",
        "cat: masks for no frame of the data set: 00009",
        "cat: not 56 wide and 40 high like the frames: 00001, 00009",
        "dog lacks 3 of 3 masks: 00000-00002",
    ]
    assert report.notes == ["cat: ids that the data set does not have: [3]"]


def test_results_for_themselves(davis: Path, tmp_path: Path) -> None:
    (davis / MASKS / "cat" / "00002.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    (davis / MASKS / "cat" / "Thumbs.db").touch()
    (davis / MASKS / ".partial" / "dog.12ab34cd").mkdir(parents=True)
    report = examine(davis / MASKS)
    assert "cat/00002.png cannot be read" in report.problems[0]
    assert len(report.problems) == 1
    assert "Thumbs.db does not belong here" in report.notes[0]
    assert report.notes[1] == "being written, or begun by a run that was stopped: dog"
    assert [row[4] for row in report.rows] == ["-", "-"]


def test_results_of_two_settings_are_a_problem(tmp_path: Path) -> None:
    def make(name: str, size: int) -> None:
        with ResultsTree(tmp_path, settings={"size": size}).writer(name, ["00000"]) as writer:
            writer.write("00000", np.ones((40, 56), np.uint8))

    make("cat", 64)
    make("dog", 64)
    assert problems(tmp_path) == ""
    make("dog", 16)
    assert "made with different settings" in problems(tmp_path)


def test_what_is_neither(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither a DAVIS folder"):
        examine(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        examine(tmp_path / "nowhere")


def test_any_data_set_by_its_name(tmp_path: Path) -> None:
    for folder, mode in (("images", "RGB"), ("masks", "L")):
        (tmp_path / folder).mkdir()
        for name in ("a", "b"):
            Image.new(mode, (6, 4), 255 if mode == "L" else 0).save(tmp_path / folder / f"{name}.png")
    report = examine_dataset("saliency", tmp_path)
    assert report.rows == [("a", "1", "6x4", "1", "1"), ("b", "1", "6x4", "1", "1")]
    assert report.problems == []
    Image.new("L", (5, 4), 255).save(tmp_path / "masks" / "b.png")
    report = examine_dataset("saliency", tmp_path)
    assert [row[0] for row in report.rows] == ["a"]
    assert len(report.problems) == 1
    assert "5 wide and 4 high" in report.problems[0]
    (tmp_path / "masks" / "b.png").unlink()
    assert "b" in examine_dataset("saliency", tmp_path).problems[0]
