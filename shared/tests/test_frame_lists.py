from pathlib import Path

import pytest

from vos_shared.datasets.frame_lists import read_folder_list, read_video_list
from vos_shared.errors import BadDataset


def make(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_a_new_folder_is_a_new_video(tmp_path: Path) -> None:
    make(tmp_path, "d/a/1.jpg", "d/a/2.jpg", "d/b/1.jpg")
    text = "d/a/1.jpg d/m/1.png\n/d/a/2.jpg\n\nd/b/1.jpg\nd/a/1.jpg"
    (tmp_path / "list.txt").write_text(text)
    videos = read_video_list(tmp_path / "list.txt", tmp_path)
    assert [[str(path.relative_to(tmp_path)) for path in video] for video in videos] == [
        ["d/a/1.jpg", "d/a/2.jpg"],
        ["d/b/1.jpg"],
        ["d/a/1.jpg"],
    ]


def test_a_line_can_be_a_folder(tmp_path: Path) -> None:
    make(tmp_path, "k/l/1.jpg", "m/1.jpg")
    (tmp_path / "list.txt").write_text("m\nk/l\n")
    assert read_folder_list(tmp_path / "list.txt", tmp_path) == [tmp_path / "m", tmp_path / "k/l"]


@pytest.mark.parametrize("read", [read_video_list, read_folder_list])
def test_unusable_lists_are_one_line(tmp_path: Path, read: object) -> None:
    assert callable(read)
    for text, words in (
        (None, "cannot be read"),
        ("\n \n", "is empty"),
        ("a/1.jpg\nb/1.jpg\n", "2 of them are not there"),
    ):
        path = tmp_path / "list.txt"
        if text is not None:
            path.write_text(text)
        with pytest.raises(BadDataset, match=words) as caught:
            read(path, tmp_path)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)


def test_a_name_longer_than_any_file(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("x" * 100_000 + "\n" + "a/0.jpg\n" * 4)
    with pytest.raises(BadDataset, match=r"names 5 frames, 5 of them are not there: .* and 2 more; ") as raised:
        read_video_list(tmp_path / "list.txt", tmp_path)
    assert len(str(raised.value)) < 2000
