"""Frames and files that are no video, or damaged ones, are refused and named; no thread remains."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from vos_shared.errors import BadVideo
from vos_shared.video import Video

FRAMES = 11

pytestmark = pytest.mark.usefixtures("no_thread_is_left")


def damage(path: Path, keep: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def huge_png() -> bytes:
    data = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 13000, 13000, 8, 2, 0, 0, 0))
    return data + png_chunk(b"IDAT", zlib.compress(bytes(39001 * 10))) + png_chunk(b"IEND", b"")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp"])
@pytest.mark.parametrize("keep", [0.7, 0.1, 0.0])
def test_truncated_frame_is_named(tmp_path: Path, suffix: str, keep: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (3, 48, 64, 3), dtype=np.uint8)
    for t, frame in enumerate(noise):
        Image.fromarray(frame).save(tmp_path / f"{t:05d}.{suffix}")
    damage(tmp_path / f"00001.{suffix}", keep)
    with pytest.raises(BadVideo, match=rf"00001\.{suffix} cannot be read"):
        list(Video.open(tmp_path))


@pytest.mark.filterwarnings("error")
def test_enormous_frame_is_not_decoded(folder: Path) -> None:
    (folder / "00002.png").write_bytes(huge_png())
    with pytest.raises(BadVideo, match=r"00002\.png is 13000 wide and 13000 high; the limit is 8192"):
        list(Video.open(folder))


def test_frame_of_another_size_is_named(folder: Path) -> None:
    Image.fromarray(np.zeros((50, 64, 3), np.uint8)).save(folder / "00004.png")
    with pytest.raises(BadVideo, match=r"00004\.png is 64 wide and 50 high, the first frame 64 wide and 48 high"):
        list(Video.open(folder))


def test_frame_with_16_bits_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 40000, dtype=np.uint16)).save(tmp_path / "0.png")
    with pytest.raises(BadVideo, match="more than 8 bits a channel"):
        list(Video.open(tmp_path))


@pytest.mark.parametrize(("colour", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_colour_frames_with_16_bits_are_refused(tmp_path: Path, colour: int, channels: int) -> None:
    """Pillow would cut 1000 to 3."""
    rows = np.pad(np.full((8, 8 * channels), 1000, dtype=">u2").view(np.uint8), ((0, 0), (1, 0)))
    data = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, colour, 0, 0, 0))
    data += png_chunk(b"IDAT", zlib.compress(rows.tobytes())) + png_chunk(b"IEND", b"")
    (tmp_path / "0.png").write_bytes(data)
    with pytest.raises(BadVideo, match="more than 8 bits a channel"):
        list(Video.open(tmp_path))


def test_what_is_no_video_is_refused_at_once(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.mp4").write_text("no video")
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(folder / "00000.jpg")
    cases: list[tuple[Any, str]] = [
        (tmp_path / "nowhere", "no such video"),
        (tmp_path / "empty", "holds no frames"),
        (tmp_path / "text.mp4", r"text\.mp4 has no video in it; it is a text file"),
        (str(tmp_path / "*.gif"), "no file matches"),
        (folder, "more than one frame called 00000"),
        (np.zeros((3, 8, 8, 3), np.float32), "float32"),
        (np.zeros((8, 8, 3), np.uint8), r"uint8 \[T, H, W, 3\]"),
    ]
    for source, says in cases:
        with pytest.raises(BadVideo, match=says):
            Video.open(source)


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 16000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    with pytest.raises(BadVideo, match="has no video in it"):
        Video.open(tmp_path / "sound.mp4")


def test_truncated_video_file(tmp_path: Path, movie: Path) -> None:
    damage(movie, 0.6)
    with pytest.raises(BadVideo, match=r"square\.mp4 cannot be read"):
        list(Video.open(movie))


def test_video_without_a_decodable_frame(tmp_path: Path) -> None:
    """A stream that the header announces, but without content."""
    with av.open(str(tmp_path / "empty.avi"), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        container.start_encoding()
    with pytest.raises(BadVideo, match=r"empty\.avi holds no frame that can be decoded"):
        len(Video.open(tmp_path / "empty.avi"))


def test_truncated_video_with_its_index_in_front(tmp_path: Path) -> None:
    """An incomplete download: FFmpeg itself would silently end the video early."""
    noise = np.random.default_rng(0).integers(0, 256, (FRAMES, 48, 64, 3), dtype=np.uint8)
    path = tmp_path / "noise.mp4"
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for frame in noise:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    damage(path, 0.5)
    with pytest.raises(BadVideo, match=r"noise\.mp4 cannot be read"):
        list(Video.open(path))
