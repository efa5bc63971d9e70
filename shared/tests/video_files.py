"""Tiny video files of many formats for the tests."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
import numpy as np

ENCODINGS: Final[dict[str, dict[str, Any]]] = {
    "h264.mp4": {},
    "h264_sound.mp4": {"sound": 0.5, "options": {"movflags": "faststart"}},
    "h264_fragments.mp4": {"options": {"movflags": "frag_keyframe+empty_moov"}},
    "mjpeg.mov": {"codec": "mjpeg"},
    "h264.mkv": {},
    "ffv1.mkv": {"codec": "ffv1"},
    "vp8.webm": {"codec": "libvpx"},
    "vp8_sound.webm": {"codec": "libvpx", "sound": 0.5},
    "vp8_live.webm": {"codec": "libvpx", "options": {"live": "1"}},
    "h264.ts": {},
    "mpeg2_sound.ts": {"codec": "mpeg2video", "sound": 0.5},
    "mpeg4.avi": {"codec": "mpeg4"},
    "mpeg4_sound.avi": {"codec": "mpeg4", "sound": 0.5},
    "flv1_sound.flv": {"codec": "flv", "sound": 0.5},
    "wmv2.wmv": {"codec": "wmv2"},
    "gif.gif": {"codec": "gif"},
    "mpeg2.mxf": {"codec": "mpeg2video"},
    "mjpeg.mjpeg": {"codec": "mjpeg"},
    "raw.y4m": {"codec": "wrapped_avframe"},
}
"""How `write_video` makes files of these names, each of its own format."""
_CONTAINERS: Final = {".mkv": "matroska", ".ts": "mpegts", ".wmv": "asf", ".y4m": "yuv4mpegpipe"}
_PIXELS: Final = {"gif": "rgb8", "mjpeg": "yuvj420p"}
_SOUNDS: Final = {".webm": "libopus", ".mp4": "aac", ".flv": "aac"}


def noise(count: int = 12) -> np.ndarray:
    """Frames that no codec makes small, uint8 [T, 48, 64, 3]."""
    return np.random.default_rng(0).integers(0, 256, (count, 48, 64, 3), dtype=np.uint8)


def write_encoding(folder: Path, name: str, frames: np.ndarray, **others: Any) -> Path:
    """Write one of `ENCODINGS`."""
    return write_video(folder / name, frames, **{**ENCODINGS[name], **others})


def write_video(
    path: Path,
    frames: np.ndarray,
    *,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    sound: float = 0,
    stamps: Sequence[int] | None = None,
    pixel_aspect: Fraction = Fraction(1),
    turn: int = 0,
    target: Any = None,
) -> Path:
    """Write a video file, 25 frames a second.

    Args:
        path: its suffix says the container.
        frames: uint8 RGB [T, H, W, 3].
        codec: of the frames.
        options: of the container.
        sound: seconds of silence beside the frames.
        stamps: when frames are shown in milliseconds, ascending, in place of the rate.
        pixel_aspect: width of a pixel divided by its height.
        turn: degrees by which players must turn it.
        target: file object to write to in place of the path.
    """
    kind = _CONTAINERS.get(path.suffix, path.suffix[1:])
    with av.open(target or f"file:{path}", "w", format=kind, options=options) as container:
        stream: Any = container.add_stream(codec, rate=25)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = _PIXELS.get(codec, "yuv420p")
        stream.codec_context.sample_aspect_ratio = pixel_aspect
        if stamps is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if turn:
            stream.set_display_rotation(turn)
        beside: Any = container.add_stream(_SOUNDS.get(path.suffix, "mp2"), rate=48000) if sound else None
        for index, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            if stamps is not None:
                picture.pts, picture.time_base = stamps[index], Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
        if beside is not None:
            _write_silence(container, beside, sound)
    return path


def _write_silence(container: Any, stream: Any, seconds: float) -> None:
    samples = av.AudioFrame.from_ndarray(np.zeros((1, 2 * round(seconds * 48000)), np.int16), "s16", "stereo")
    samples.sample_rate, samples.pts = 48000, 0
    container.mux(stream.encode(samples))
    container.mux(stream.encode(None))
