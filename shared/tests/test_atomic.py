import os
from pathlib import Path

import pytest

from vos_shared.atomic import atomic_path, write_json, write_text


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
