"""Packets of a media file, and whether it is complete."""

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
"""Called with a description of each fault of a file; may raise."""

LIMIT: Final = {"max_pixels": str(MAX_SIDE**2)}
"""Option of FFmpeg that limits the size of frames, since a small file may claim gigabytes."""
_TIMED: Final = frozenset({"asf", "flv", "matroska,webm", "mxf"})
"""Formats, besides MP4, whose header stores the duration; FFmpeg estimates that of others."""
_BARE: Final = frozenset({"dv", "obu", "yuv4mpegpipe"})
"""Formats without a container, of which FFmpeg drops an incomplete last frame."""
_UNCLOSED_AVI: Final = 1 << 30
"""Number of frames in the header of an AVI file that FFmpeg wrote to a pipe."""
_SLACK: Final = 0.5
"""Tolerance of a header's duration in seconds, since it is rounded or written before the end is known."""


@contextmanager
def opened_container(path: Path) -> Generator[InputContainer, None, None]:
    """Open a media file such that FFmpeg sees only its content, neither its name nor other files.

    A name may look like an address (``12:30.mp4``, ``pipe:``) or a pattern, and a file may refer to others.

    Raises:
        FFmpegError: the file is not a media file.
        OSError: the file cannot be opened, or is not a regular file.
    """
    silence_ffmpeg()
    with open_file(path) as file:
        options = {"fd": str(file.fileno()), "protocol_whitelist": "fd", **LIMIT}
        with av.open("fd:", options=options, metadata_errors="replace") as container:
            yield container


def silence_ffmpeg() -> None:
    """Let FFmpeg discard its messages; call it before a file is opened.

    PyAV discards them as well, but needs Python's lock for it on FFmpeg's threads: closing a video while Python holds
    the lock could deadlock.
    """
    av.logging.restore_default_callback()
    av.logging.set_libav_level(av.logging.PANIC)


def main_stream(streams: Sequence[av.VideoStream]) -> av.VideoStream | None:
    """The largest (first) stream that can be decoded and is not a cover picture; None if there is none."""
    videos = [stream for stream in streams if stream.codec_context and not is_cover(stream)]
    return max(videos, key=lambda stream: stream.width * stream.height, default=None)


def is_cover(stream: av.VideoStream) -> bool:
    """Whether a stream is a single picture, such as the cover of an album."""
    return bool(stream.disposition & Disposition.attached_pic)


class VideoPackets:
    """Iterates once over the packets of a stream.

    Args:
        path: path of the file.
        container: the opened file.
        stream: a stream of the container.
        found: called with each fault.
    """

    def __init__(self, path: Path, container: InputContainer, stream: av.VideoStream, found: Found) -> None:
        self._path, self._container, self._stream, self._found = path, container, stream, found
        self._count = 0
        self._place = 0  # End of the last packet in the file.
        # Latest presentation time of a packet, in units of the stream; frames for AVI.
        self._last = stream.frames - 1 if container.format.name == "avi" and stream.frames < _UNCLOSED_AVI else 0
        self._end = 0.0  # Seconds; end of all streams.

    def __iter__(self) -> Generator[Packet | None, None, None]:
        """Yield all readable packets and then None, which flushes the decoder."""
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
        """Whether the file announces more frames than it contains.

        Args:
            stamps: presentation time of each decoded frame, in units of the stream.
        """
        return (
            self._count < self._indexed()
            or is_cut_off(self._path, self._container.format.name)
            or (self._container.format.name in _BARE and self._place != self._path.stat().st_size)
            or self._lack_time([stamp for stamp in stamps if stamp is not None])
        )

    def _indexed(self) -> int:
        """Number of packets of the stream in the index of an MP4 file; other indexes list only key frames."""
        return sum(entry.size > 0 for entry in self._stream.index_entries) if self._is_mp4 else 0

    def _lack_time(self, stamps: Sequence[int]) -> bool:
        """Whether the frames end before the packets do or, at a constant rate, before the duration in the header.

        At a variable rate, the last frame may be shown for long.
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
