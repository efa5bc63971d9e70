"""Submission files: exactly what the server requires; all errors are reported before a file is written."""

from __future__ import annotations

import json
import os
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vos_shared.cli import main
from vos_shared.errors import BadResults
from vos_shared.masks import read_mask, write_mask
from vos_shared.submission import validate_submission, wanted_masks, write_submission


def vos(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["vos", "submit", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


@pytest.fixture
def results(davis: Path, tmp_path: Path) -> Path:
    """The true masks of `davis` as results of a method."""
    return shutil.copytree(davis / "Annotations" / "480p", tmp_path / "results")


@pytest.fixture
def youtube(tmp_path: Path) -> Path:
    """One video of five frames, with object 3 in the first three and 5 from the second of them on."""
    frames = [f"{t:05d}" for t in range(0, 25, 5)]
    folder = tmp_path / "youtube" / "valid"
    for kind in ("JPEGImages", "Annotations"):
        (folder / kind / "cat").mkdir(parents=True)
    for frame in frames:
        Image.new("RGB", (10, 8)).save(folder / "JPEGImages" / "cat" / f"{frame}.jpg")
    mask = np.zeros((8, 10), np.uint8)
    mask[0] = 3
    write_mask(folder / "Annotations/cat/00000.png", mask)
    mask[1] = 5
    write_mask(folder / "Annotations/cat/00005.png", mask)
    objects = {"3": {"frames": frames[:3]}, "5": {"frames": frames[1:4]}}
    (folder / "meta.json").write_text(json.dumps({"videos": {"cat": {"objects": objects}}}))
    (tmp_path / "masks" / "cat").mkdir(parents=True)
    for frame in frames:
        write_mask(tmp_path / "masks" / "cat" / f"{frame}.png", mask)
    return folder.parent


def test_davis_holds_every_frame_as_it_was_written(
    davis: Path, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (results / "another").mkdir()
    (results / "cat.mp4").write_bytes(b"")
    output = tmp_path / "new" / "davis.zip"
    words = ("--dataset", "davis2017", "--root", davis)
    assert vos(monkeypatch, *words, "--results", results, "--output", output) == 0
    assert capsys.readouterr().out == f"8 masks in {output}\n"
    with zipfile.ZipFile(output) as archive:
        expected = [f"cat/{t:05d}.png" for t in range(5)] + [f"dog/{t:05d}.png" for t in range(3)]
        assert archive.namelist() == expected
        assert all(archive.read(name) == (results / name).read_bytes() for name in expected)
        assert len({info.date_time for info in archive.infolist()} | {(1980, 1, 1, 0, 0, 0)}) == 1
    assert vos(monkeypatch, *words, "--check", output) == 0
    assert "is complete: 8 masks" in capsys.readouterr().out
    first = output.read_bytes()
    os.utime(results / "cat/00000.png", (0, 1e9))
    assert vos(monkeypatch, *words, "--results", results, "--output", output) == 0
    assert output.read_bytes() == first


def test_youtube_vos_holds_the_frames_of_meta_alone(youtube: Path, tmp_path: Path) -> None:
    wanted = wanted_masks("youtube-vos", youtube)
    assert write_submission("youtube-vos", wanted, tmp_path / "masks", tmp_path / "y.zip") == 4
    with zipfile.ZipFile(tmp_path / "y.zip") as archive:
        assert archive.namelist() == [f"Annotations/cat/{t:05d}.png" for t in (0, 5, 10, 15)]
    assert validate_submission("youtube-vos", wanted, tmp_path / "y.zip") == 4
    mask = read_mask(tmp_path / "masks/cat/00000.png")
    write_mask(tmp_path / "masks/cat/00010.png", np.where(mask == 5, np.uint8(4), mask))
    with pytest.raises(BadResults, match=r"cat 00010: id 4 where the objects are 3, 5$"):
        write_submission("youtube-vos", wanted, tmp_path / "masks", tmp_path / "new.zip")


def test_everything_wrong_is_told_on_one_line_and_nothing_written(
    davis: Path, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for t in (1, 2):
        (results / f"cat/{t:05d}.png").unlink()
    mask = read_mask(results / "cat/00000.png")
    write_mask(results / "cat/00003.png", mask[:20])
    write_mask(results / "cat/00004.png", np.full_like(mask, 255))
    Image.fromarray(mask).save(results / "cat/00000.png")
    (results / "dog/00000.png").write_bytes(b"\x89PNG")
    for t in (1, 2):
        Image.fromarray((mask > 0) * np.uint8(255)).save(results / f"dog/{t:05d}.png")
    output = tmp_path / "davis.zip"
    words = ("--dataset", "davis2017", "--root", davis, "--results", results, "--output", output)
    assert vos(monkeypatch, *words) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "results cannot be submitted, 6 problems: " in line
    for problem in (
        "cat lacks 00001-00002; ",
        "cat 00000: grey, not a palette PNG",
        "cat 00003: 56 wide and 20 high, not 56 wide and 40 high like the frames",
        "cat 00004: id 255 where the objects are 1, 2",
        "dog 00000: mask cannot be read",
        "dog 00001-00002: mask is black and white (0 and 255)",
    ):
        assert problem in line
    assert not output.exists()
    assert not list(tmp_path.glob(".davis*"))
    shutil.rmtree(results / "dog")
    assert vos(monkeypatch, *words) == 2
    assert "dog lacks 00000-00002" in capsys.readouterr().err


def test_an_id_above_those_of_the_sequence(davis: Path, results: Path) -> None:
    mask = read_mask(results / "dog/00002.png")
    write_mask(results / "dog/00002.png", mask * np.uint8(2))
    with pytest.raises(BadResults, match=r"1 problem: dog 00002: id 2 where the objects are 1$"):
        write_submission("davis2017", wanted_masks("davis2017", davis), results, results / "a.zip")


def test_davis2016_takes_black_and_white_and_any_ids(davis: Path, results: Path) -> None:
    wanted = wanted_masks("davis2016", davis)
    for path in (results / "dog").iterdir():
        Image.fromarray(read_mask(path) * np.uint8(255)).save(path)
    assert write_submission("davis2016", wanted, results, results / "a.zip") == 8


def test_a_file_that_somebody_else_made(davis: Path, results: Path, tmp_path: Path) -> None:
    wanted = wanted_masks("davis2017", davis)
    path = tmp_path / "theirs.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for mask in sorted(results.rglob("*.png")):
            archive.write(mask, mask.relative_to(results))
        archive.mkdir("dog")
    assert validate_submission("davis2017", wanted, path) == 8
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../outside.png", b"")
        archive.writestr("__MACOSX/cat/00000.png", b"")
    with pytest.raises(BadResults, match=r"holds 2 files that do not belong there: \.\./outside\.png, __MACOSX"):
        validate_submission("davis2017", wanted, path)
    with zipfile.ZipFile(path, "w") as archive:  # All in another folder, as some programs pack them.
        for mask in sorted(results.rglob("*.png")):
            archive.write(mask, mask.relative_to(tmp_path))
    with pytest.raises(BadResults, match=r"holds 8 files .* \.\.; cat lacks 00000-00004; dog lacks 00000-00002$"):
        validate_submission("davis2017", wanted, path)


def test_what_is_no_submission(
    davis: Path, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--dataset", "davis2017", "--root", davis)
    with zipfile.ZipFile(tmp_path / "cut.zip", "w") as archive:
        archive.write(results / "cat/00000.png", "cat/00000.png")
    whole = (tmp_path / "cut.zip").read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[:60] + b"\xff\xff" + whole[62:])
    (tmp_path / "text.zip").write_text("nothing")
    for more, says in (
        (("--check", tmp_path / "none.zip"), "no such file"),
        (("--check", tmp_path / "text.zip"), "text.zip is not a zip file that can be read"),
        (("--check", tmp_path / "cut.zip"), "cut.zip is not a zip file that can be read: Bad CRC-32"),
        (("--results", tmp_path / "none", "--output", tmp_path / "a.zip"), "no such results folder"),
        (("--results", results, "--output", tmp_path), "is a folder; name the zip file to write"),
        (("--results", results), "give --results and --output"),
        (("--check", tmp_path / "text.zip", "--results", results), "give --results and --output"),
    ):
        assert vos(monkeypatch, *words, *more) == 2
        assert says in capsys.readouterr().err


def test_damaged_zip_files_of_every_kind(davis: Path, results: Path, tmp_path: Path) -> None:
    wanted = wanted_masks("davis2017", davis)
    path = tmp_path / "packed.zip"
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with zipfile.ZipFile(path, "w", method) as archive:
            for mask in sorted(results.rglob("*.png")):
                archive.write(mask, mask.relative_to(results))
        whole = path.read_bytes()
        assert validate_submission("davis2017", wanted, path) == 8
        path.write_bytes(whole[:60] + bytes(20) + whole[80:])
        with pytest.raises(BadResults, match=r"packed\.zip is not a zip file that can be read"):
            validate_submission("davis2017", wanted, path)


def test_a_zip_file_with_a_damaged_name(davis: Path, tmp_path: Path) -> None:
    path = tmp_path / "names.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("käse/00000.png", b"")
    path.write_bytes(path.read_bytes().replace("ä".encode(), b"\xff\xff"))
    with pytest.raises(BadResults, match=r"names\.zip is not a zip file that can be read: 'utf-8'"):
        validate_submission("davis2017", wanted_masks("davis2017", davis), path)


def packed(results: Path, path: Path) -> Path:
    """A zip file of the masks, made without our code."""
    with zipfile.ZipFile(path, "w") as archive:
        for mask in sorted(results.rglob("*.png")):
            archive.write(mask, mask.relative_to(results))
    return path


def other_mask(archive: zipfile.ZipFile, results: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        archive.write(results / "dog/00001.png", "cat/00000.png")


@pytest.mark.parametrize(
    ("add", "says"),
    [
        (other_mask, r"holds more than once: cat/00000\.png$"),
        (lambda archive, _: archive.writestr("Cat/00000.png", b""), r"do not belong there: Cat/00000\.png$"),
        (lambda archive, _: archive.writestr("/cat/00000.png", b""), r"do not belong there: /cat/00000\.png$"),
        (lambda archive, _: archive.writestr("cat\\00000.png", b""), "do not belong there: "),
        (lambda archive, _: archive.mkdir("cat/00009.png"), r"do not belong there: cat/00009\.png/$"),
        (lambda archive, _: archive.writestr("x" * 60_000, b""), "holds 1 files that do not belong there: x+$"),
    ],
)
def test_members_that_servers_may_take_otherwise(
    add: Callable[[zipfile.ZipFile, Path], object], says: str, davis: Path, results: Path, tmp_path: Path
) -> None:
    path = packed(results, tmp_path / "theirs.zip")
    with zipfile.ZipFile(path, "a") as archive:
        add(archive, results)
    with pytest.raises(BadResults, match=says) as raised:
        validate_submission("davis2017", wanted_masks("davis2017", davis), path)
    assert len(str(raised.value)) < 1000


def test_a_name_that_is_cut_at_a_zero(davis: Path, results: Path, tmp_path: Path) -> None:
    path = packed(results, tmp_path / "theirs.zip")
    path.write_bytes(path.read_bytes().replace(b"cat/00001.png", b"cat/00000.png\0"[:13]))
    with pytest.raises(BadResults, match=r"holds more than once: cat/00000\.png; cat lacks 00001$"):
        validate_submission("davis2017", wanted_masks("davis2017", davis), path)
    path = packed(results, tmp_path / "theirs.zip")
    path.write_bytes(path.read_bytes().replace(b"cat/00001.png", b"cat/0001.png\0"))
    with pytest.raises(BadResults, match=r"holds 1 files .*; cat lacks 00001$"):
        validate_submission("davis2017", wanted_masks("davis2017", davis), path)


def test_an_encrypted_member(davis: Path, results: Path, tmp_path: Path) -> None:
    path = packed(results, tmp_path / "theirs.zip")
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    content[content.rindex(b"PK\x03\x04") + 6] |= 1
    path.write_bytes(content)
    with pytest.raises(BadResults, match="is encrypted"):
        validate_submission("davis2017", wanted_masks("davis2017", davis), path)


def test_a_mask_that_unpacks_to_far_more_than_a_mask(
    davis: Path, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (results / "cat/00002.png").write_bytes(bytes(10_000_000))
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for mask in sorted(results.rglob("*.png")):
            archive.write(mask, mask.relative_to(results))
    opened: list[str] = []
    read = zipfile.ZipFile.open

    def counted(self: zipfile.ZipFile, info: zipfile.ZipInfo) -> Any:
        opened.append(info.filename)
        return read(self, info)

    monkeypatch.setattr(zipfile.ZipFile, "open", counted)
    with pytest.raises(BadResults, match=r"1 problem: cat 00002: 10,000,000 bytes, too many for a mask$"):
        validate_submission("davis2017", wanted_masks("davis2017", davis), path)
    assert len(opened) == 7
    assert "cat/00002.png" not in opened


@pytest.mark.skipif("VOS_DATA" not in os.environ, reason="VOS_DATA is not set")
def test_published_masks(tmp_path: Path) -> None:
    data = Path(os.environ["VOS_DATA"])
    wanted = wanted_masks("davis2017", data / "davis2017-val-open")
    assert {item.sequence: set(item.ids) for item in wanted}["bmx-trees"] == {1, 2}
    count = write_submission("davis2017", wanted, data / "published-results/osvos-davis2017", tmp_path / "a.zip")
    assert count == validate_submission("davis2017", wanted, tmp_path / "a.zip") == 260
