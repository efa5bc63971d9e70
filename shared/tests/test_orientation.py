"""Photographs and videos are rotated as their metadata says."""

from __future__ import annotations

import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from vos_shared.video import Video
from vos_shared.video_file import _turn, _upright


def shown(stored: np.ndarray, orientation: int) -> np.ndarray:
    """EXIF 2.3, tag 274: position of row 0 and column 0 of the stored image in the upright picture."""
    turned = stored.swapaxes(0, 1) if orientation >= 5 else stored
    up = {1: 1, 2: 1, 3: -1, 4: -1, 5: 1, 6: 1, 7: -1, 8: -1}[orientation]
    left = {1: 1, 2: -1, 3: -1, 4: 1, 5: 1, 6: -1, 7: -1, 8: 1}[orientation]
    picture: np.ndarray = turned[::up, ::left]
    return picture


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_set_upright(tmp_path: Path, orientation: int, mode: str, suffix: str) -> None:
    stored = np.zeros((16, 24, 3), np.uint8)
    stored[:8, :8] = 255  # In the upper left corner.
    exif = Image.Exif()
    exif[0x112] = orientation
    Image.fromarray(stored).convert(mode).save(tmp_path / f"00000.{suffix}", exif=exif, quality=95)
    video = Video.open(tmp_path)
    expected = shown(stored, orientation)
    assert video.size == expected.shape[:2]
    assert np.abs(video[0].astype(int) - expected).max() < 30


@pytest.mark.parametrize(
    ("kind", "value"),
    [(3, b"\0\0"), (3, b"\t\0"), (2, b"6\0"), (1, b"\6"), (11, b"\0\0\x80\x7f"), (7, b"\6")],
    ids=["0", "9", "text", "byte", "infinity", "undefined"],
)
def test_a_strange_orientation_is_none(tmp_path: Path, kind: int, value: bytes) -> None:
    """An invalid tag neither damages nor rotates a photograph."""
    count = len(value) if kind in (1, 2, 7) else 1
    entry = struct.pack("<HHI4s", 0x112, kind, count, value)
    exif = b"II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4)
    stored = np.zeros((16, 24, 3), np.uint8)
    stored[:8, :8] = 255
    Image.fromarray(stored).save(tmp_path / "00000.png", exif=exif)
    np.testing.assert_array_equal(Video.open(tmp_path)[0], stored)


@pytest.mark.parametrize(("flip", "orientation"), [((False, True), 2), ((True, False), 4), ((True, True), 3)])
def test_a_mirrored_video_is_shown_as_players_do(frames: np.ndarray, flip: tuple[bool, bool], orientation: int) -> None:
    """Front cameras note a mirrored matrix: a or d of FFmpeg's display matrix is negative."""
    matrix = np.array([-1 if flip[1] else 1, 0, 0, 0, -1 if flip[0] else 1, 0, 0, 0, 16384], np.int32)
    matrix[:8] *= 65536

    stored: Any = SimpleNamespace(side_data={"DISPLAYMATRIX": matrix.tobytes()})
    np.testing.assert_array_equal(_upright(frames[0], _turn(stored)), shown(frames[0], orientation))


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_a_lying_video_is_set_upright(tmp_path: Path, frames: np.ndarray, turn: int) -> None:
    """Phones store the sensor's picture and note how players must turn it."""
    path = tmp_path / "phone.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        if not hasattr(stream, "set_display_rotation"):
            pytest.skip("this PyAV reads the note but cannot write it")
        stream.set_display_rotation(turn)
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    video = Video.open(path)
    upright = np.rot90(frames[0], turn // 90)
    assert video.size == upright.shape[:2]
    assert np.percentile(np.abs(next(iter(video)).astype(int) - upright), 99) <= 25
