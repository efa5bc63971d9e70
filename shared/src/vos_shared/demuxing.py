"""Packets of a media file, and whether there are as many as it promises."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Final, TypeAlias

import av
import av.logging
from av.container import InputContainer
from av.stream import Disposition

from vos_shared.container_ends import is_cut_off
from vos_shared.files import open_file
from vos_shared.images import MAX_SIDE

Packet: TypeAlias = "av.Packet[av.VideoStream]"
Found: TypeAlias = Callable[[str], None]
"""Takes a fault of a file in words; it may raise."""

LIMIT: Final = {"max_pixels": str(MAX_SIDE**2)}
"""Option of FFmpeg: a small file may claim frames of gigabytes."""
_TIMED: Final = frozenset({"asf", "flv", "matroska,webm", "mxf"})
"""Formats, beside MP4, whose header tells how long they last. FFmpeg estimates it of others."""
_BARE: Final = frozenset({"dv", "obu", "yuv4mpegpipe"})
"""Formats of frames alone, of which FFmpeg drops a last one that is cut."""
_UNCLOSED_AVI: Final = 1 << 30
"""Number of frames in the header of an AVI file that FFmpeg wrote to a pipe."""
_SLACK: Final = 0.5
"""Seconds by which headers may be wrong about the end, since they are rounded or written before it was known."""


@contextmanager
def opened_container(path: Path) -> Generator[InputContainer, None, None]:
    """Open a media file for FFmpeg, which gets its content and neither its name nor any other file.

    A name can look like an address (``12:30.mp4``, ``pipe:``) or a pattern, and a file may ask for others.

    Raises:
        FFmpegError: it is not one.
        OSError: it cannot be opened, or is not a regular file.
    """
    silence_ffmpeg()
    with open_file(path) as file:
        options = {"fd": str(file.fileno()), "protocol_whitelist": "fd", **LIMIT}
        with av.open("fd:", options=options, metadata_errors="replace") as container:
            yield container


def silence_ffmpeg() -> None:
    """Let FFmpeg drop its messages by itself; call it before a file is opened.

    PyAV drops them too, but takes Python's lock for it, on FFmpeg's threads: closing a video whose threads have
    something to say while Python holds the lock would wait for ever.
    """
    av.logging.restore_default_callback()
    av.logging.set_libav_level(av.logging.PANIC)


def main_stream(streams: Sequence[av.VideoStream]) -> av.VideoStream | None:
    """The largest that can be decoded and is not a cover picture; of equal ones the first."""
    videos = [stream for stream in streams if stream.codec_context and not is_cover(stream)]
    return max(videos, key=lambda stream: stream.width * stream.height, default=None)


def is_cover(stream: av.VideoStream) -> bool:
    """Whether a stream is one picture that stands for the file, such as the cover of a record."""
    return bool(stream.disposition & Disposition.attached_pic)


class VideoPackets:
    """Packets of one stream of a file, read once.

    Args:
        path: of the file.
        container: the file, opened.
        stream: of the container.
        found: is told of each fault.
    """

    def __init__(self, path: Path, container: InputContainer, stream: av.VideoStream, found: Found) -> None:
        self._path, self._container, self._stream, self._found = path, container, stream, found
        self._count = 0
        self._place = 0  # Where the last packet ends in the file.
        # Presentation time of the last packet that is to be shown, in units of the stream; of AVI these are frames.
        self._last = stream.frames - 1 if container.format.name == "avi" and stream.frames < _UNCLOSED_AVI else 0
        self._end = 0.0  # Seconds; of sound and pictures.

    def __iter__(self) -> Generator[Packet | None, None, None]:
        """All that can be read; None at last, which asks the decoder for the frames that it has kept back."""
        try:
            for packet in self._container.demux():
                if packet.pts is not None and packet.time_base is not None:
                    self._end = max(self._end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
                if packet.stream_index == self._stream.index and packet.size:
                    yield self._counted(packet)  # type: ignore[arg-type]
        except av.FFmpegError as reason:
            self._found(reason.strerror or str(reason))
        yield None

    def _counted(self, packet: Packet) -> Packet:
        if packet.is_corrupt:
            self._found("a packet is cut short")
        self._count += 1
        self._place = (packet.pos or 0) + packet.size
        if packet.pts is not None and not packet.is_discard:
            self._last = max(self._last, packet.pts)
        return packet

    def end_early(self, stamps: Sequence[int | None]) -> bool:
        """Whether the file promises more frames than there are.

        Args:
            stamps: presentation time of each frame that was decoded, in units of the stream.
        """
        return (
            self._count < self._indexed()
            or is_cut_off(self._path, self._container.format.name)
            or (self._container.format.name in _BARE and self._place != self._path.stat().st_size)
            or self._lack_time([stamp for stamp in stamps if stamp is not None])
        )

    def _indexed(self) -> int:
        """How many packets an MP4 file lists for the stream; other indexes list key frames only."""
        return sum(entry.size > 0 for entry in self._stream.index_entries) if self._is_mp4 else 0

    def _lack_time(self, stamps: Sequence[int]) -> bool:
        """Whether frames stop before packets do, or those of a constant rate before the header says.

        Where frames are shown for times of their own, the last one may stay for long.
        """
        if len(stamps) < 2:
            return False
        gaps = [after - before for before, after in pairwise(stamps)]
        mean = (stamps[-1] - stamps[0]) / len(gaps)
        if self._last - stamps[-1] > 2 * max(gaps):
            return True
        timed = self._is_mp4 or self._container.format.name in _TIMED
        if not timed or not self._container.duration or max(gaps) > 2 * mean:
            return False
        promised = (max(self._container.start_time or 0, 0) + self._container.duration) / av.time_base
        return promised - self._end > max(_SLACK, 3 * mean * float(self._stream.time_base or 0))

    @property
    def _is_mp4(self) -> bool:
        return "mov" in self._container.format.name.split(",")
