"""Training videos from lists and folders, and the messages about videos that cannot be used."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dense_ulearn.presets import CUSTOM, Augmentation
from dense_ulearn.sources import ListedFolders, listed_videos, usable
from vos_shared.errors import BadDataset, BadVideo
from vos_shared.training.videos import found_videos
from vos_shared.video import Video, VideoWriter

SETTINGS = replace(CUSTOM, augmentation=Augmentation(crop=32, shorter_side=(32, 40)))


def write_frames(folder: Path, count: int, size: tuple[int, int] = (48, 64)) -> Path:
    folder.mkdir(parents=True)
    random = np.random.default_rng(count)
    for index in range(count):
        Image.fromarray(random.integers(0, 256, (*size, 3), np.uint8)).save(folder / f"{index}.jpg")
    return folder


def write_video(path: Path, count: int = 6) -> Path:
    path.parent.mkdir(exist_ok=True)
    with VideoWriter(path) as writer:
        for index in range(count):
            writer.write(np.full((90, 120, 3), 8 * index, np.uint8))
    return path


def test_folders_and_files_become_videos(tmp_path: Path) -> None:
    place = tmp_path / "videos"
    write_frames(place / "b", 11)
    write_video(place / "a.mp4")
    (place / "notes.tsv").write_text("not a video")
    videos = found_videos([place], tmp_path / "cache", longest=45)
    assert [(video.name, len(video), video.size) for video in videos] == [("a", 6, (45, 60)), ("b", 11, (48, 64))]
    np.testing.assert_allclose(videos[0][3], 24, atol=4)


def test_a_cover_picture_beside_videos_is_no_video(tmp_path: Path) -> None:
    write_video(tmp_path / "in" / "a.mp4")
    Image.new("RGB", (60, 45)).save(tmp_path / "in" / "cover.jpg")
    assert [video.name for video in found_videos([tmp_path / "in"], tmp_path / "cache", 45)] == ["a"]


def test_a_pattern_is_one_video_of_frames_or_many_places(tmp_path: Path) -> None:
    for name in ("b", "a"):
        write_frames(tmp_path / name, 6)
    (one,) = found_videos([tmp_path / "a" / "*.jpg"], tmp_path / "cache", 45)
    assert (one.name, len(one)) == ("a", 6)
    assert [video.name for video in found_videos([tmp_path / "[ab]"], tmp_path / "cache", 45)] == ["a", "b"]
    write_frames(tmp_path / "run" / "frames" / "c", 6)
    assert [video.name for video in found_videos([tmp_path / "*"], tmp_path / "run", 45)] == ["a", "b"]


def test_two_processes_may_decode_the_same_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def late(self: Path, target: Path) -> Path:
        if not target.exists():
            shutil.copytree(self, target)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", late)
    (video,) = found_videos([write_video(tmp_path / "a.mp4")], tmp_path / "cache", 45)
    assert len(video) == 6
    assert [folder.name[0] for folder in (tmp_path / "cache" / "frames").glob("[!.]*")] == ["a"]
    assert not list((tmp_path / "cache" / "frames" / ".partial").iterdir())


def test_a_video_file_is_decoded_once(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4")
    first = found_videos([video], tmp_path / "cache", 45)[0]
    (frame,) = (tmp_path / "cache" / "frames").glob("*/00002.jpg")
    Image.new("RGB", (60, 45), (1, 200, 1)).save(frame)
    again = found_videos([video], tmp_path / "cache", 45)[0]
    assert (again[2] != first[1]).any()
    assert again[2][0, 0, 1] > 190


def test_a_damaged_video_leaves_no_frames_behind(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", 30)
    video.write_bytes(video.read_bytes()[:-400])
    with pytest.raises(BadVideo, match=r"a\.mp4"):
        found_videos([video], tmp_path / "cache", 45)
    assert not list((tmp_path / "cache" / "frames").rglob("*.jpg"))


def test_places_without_videos(tmp_path: Path) -> None:
    with pytest.raises(BadDataset, match="does not exist"):
        found_videos([tmp_path / "nowhere"], tmp_path, 40)
    with pytest.raises(BadDataset, match="holds no videos"):
        found_videos([tmp_path], tmp_path, 40)


def test_lists_name_frames_or_folders(tmp_path: Path) -> None:
    for name in ("x", "y"):
        write_frames(tmp_path / "data" / name, 12)
    frames, folders = tmp_path / "frames.txt", tmp_path / "folders.txt"
    frames.write_text("".join(f"/data/{name}/{index}.jpg mask.png\n" for name in "yx" for index in range(12)))
    folders.write_text("data/y\ndata/x\n")
    for videos in (listed_videos(frames, tmp_path), ListedFolders(folders, tmp_path)):
        assert [video.name for video in videos] == ["y", "x"]
        assert list(videos[0].frame_names) == [str(index) for index in range(12)]


def test_short_and_small_videos_are_left_out_aloud(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_frames(tmp_path / "fine", 5)
    write_frames(tmp_path / "short", 4)
    write_frames(tmp_path / "small", 5, size=(30, 64))
    videos = usable(found_videos([tmp_path], tmp_path / "cache", 40), SETTINGS)
    assert [video.name for video in videos] == ["fine"]
    assert capsys.readouterr().err == (
        "training: left out 2 of 3 videos: short (4 frames, a clip has 5), small (64x30, smaller than the crop of 32)\n"
    )


def test_nothing_to_train_on(tmp_path: Path) -> None:
    short = Video.open(write_frames(tmp_path / "short", 4))
    with pytest.raises(BadDataset, match="none of the 1 videos can be used: short \\(4 frames, a clip has 5\\)"):
        usable([short], SETTINGS)
