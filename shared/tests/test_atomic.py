import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vos_shared.atomic import atomic_path, require_json, write_json, write_text
from vos_shared.errors import UserError


def test_the_file_is_there_only_after_the_block(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    with atomic_path(target) as temporary:
        temporary.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert os.listdir(tmp_path) == ["file.txt"]  # noqa: PTH208 - hidden files too


def test_a_failure_keeps_the_old_file_and_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")
    with pytest.raises(OSError), atomic_path(target) as temporary:
        temporary.with_name("nowhere").read_text()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]  # noqa: PTH208 - hidden files too


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    write_text(tmp_path / "ours", "")
    (tmp_path / "plain").touch()
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_json_makes_folders_and_refuses_what_json_does_not_have(tmp_path: Path) -> None:
    write_json(tmp_path / "a" / "b.json", {"name": "Äpfel", "n": 1})
    assert (tmp_path / "a" / "b.json").read_text(encoding="utf-8") == '{\n  "name": "Äpfel",\n  "n": 1\n}\n'
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "nan.json", float("nan"))
    assert not (tmp_path / "nan.json").exists()


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link = tmp_path / "scores.json"
    link.symlink_to(tmp_path / "there" / "new.json")
    for text in ("one", "two"):
        write_text(link, text)
        assert link.is_symlink()
        assert (tmp_path / "there" / "new.json").read_text() == text


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_pipe_is_written_to_and_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as reader:
        read = reader.submit(pipe.read_text)
        write_text(pipe, "all of it")
        assert read.result() == "all of it"
    assert pipe.is_fifo()
    assert os.listdir(tmp_path) == ["pipe"]  # noqa: PTH208 - hidden files too


def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path: Path) -> None:
    target = tmp_path / ("n" * 255)
    write_text(target, "content")
    assert target.read_text() == "content"


def test_what_is_no_json_is_not_replaced_by_it(tmp_path: Path) -> None:
    film, ours = tmp_path / "film.mp4", tmp_path / "scores.json"
    film.write_bytes(b"\0\0\0\x20ftypisom")
    with pytest.raises(UserError, match=r"film\.mp4 exists and is not a JSON file"):
        require_json(film)
    write_json(ours, {})
    for path in (ours, tmp_path / "new.json", None):
        require_json(path)


def test_what_the_system_refuses_names_the_file(tmp_path: Path) -> None:
    """The error names the file and not the temporary one, even for a full disk, where the system gives no name."""
    path = tmp_path / "weights.pth"
    for name in (None, "temporary"):
        with pytest.raises(OSError, match="No space left") as full, atomic_path(path) as temporary:
            raise OSError(errno.ENOSPC, "No space left on device", name and str(temporary))
        assert full.value.filename == str(path)
    with pytest.raises(FileNotFoundError) as missing, atomic_path(path):
        (tmp_path / "other").read_bytes()
    assert missing.value.filename == str(tmp_path / "other")
    assert not list(tmp_path.iterdir())
