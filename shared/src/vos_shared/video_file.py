"""Frames of a video file, decoded by FFmpeg."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
from av.container import InputContainer
from av.video.reformatter import VideoReformatter

from vos_shared.demuxing import LIMIT, Found, Packet, VideoPackets, is_cover, main_stream, opened_container
from vos_shared.errors import BadVideo, DamagedVideo
from vos_shared.files import open_file
from vos_shared.images import MAX_SIDE
from vos_shared.method import Frame
from vos_shared.video_sources import digest, samples

_SHORTEST: Final = Fraction(1, 2000)
"""Shortest duration of a frame in seconds; time stamps that are closer, or decrease, are not used."""
_LISTS: Final = (b"#EXTM3U", b"ffconcat", b"<?xml", b"<MPD", b"v=0")
"""First bytes of files that list other files or addresses: HLS, FFmpeg's concat, DASH, IMF, SDP."""


@dataclass(frozen=True)
class _Decoded:
    """Properties of a file that are known after decoding it.

    Attributes:
        stamps: presentation time of each frame in units of `time_base`; None if a frame has none.
        time_base: unit in seconds.
        last: duration of the last frame in the same units; 0 if unknown.
        damage: the first fault; empty without faults.
    """

    stamps: tuple[int | None, ...]
    time_base: Fraction
    last: int
    damage: str

    def times(self) -> tuple[Fraction, ...] | None:
        """Start of each frame and end of the last one, in seconds after the first; None if unknown."""
        stamps = [stamp for stamp in self.stamps if stamp is not None]
        if len(stamps) < len(self.stamps):
            return None
        # In live recordings the duration of a frame is one unit, or 0.
        before = stamps[-1] - stamps[-2] if len(stamps) > 1 else 0
        stamps.append(stamps[-1] + (self.last if 2 * self.last > before else before))
        times = tuple((stamp - stamps[0]) * self.time_base for stamp in stamps)
        return times if all(after - before >= _SHORTEST for before, after in pairwise(times)) else None


class FileVideo:
    """The main video stream of a file.

    Args:
        path: path of the file.
        accept_damaged: use the frames that can be decoded if the file is damaged or cut short.

    Raises:
        BadVideo: the file cannot be opened, has no video, or one that is too large.
    """

    def __init__(self, path: Path, *, accept_damaged: bool = False) -> None:
        self._path = path
        self._accept_damaged = accept_damaged
        with self._opened() as (_, stream):
            self._mean_rate = stream.average_rate if stream.start_time is not None else None
            self._rate = stream.guessed_rate or stream.average_rate
            self._aspect = stream.sample_aspect_ratio or Fraction(1)
        self._known: _Decoded | None = None

    @property
    def fps(self) -> float | None:
        """Mean number of frames a second; decodes the file if the header does not give it."""
        if self._mean_rate:
            return float(self._mean_rate)
        times = self.times()
        if times is not None:
            return float((len(times) - 1) / times[-1])
        return float(self._rate) if self._rate else None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the first frame after rotation."""
        return self._first[0]

    @property
    def pixel_aspect(self) -> Fraction:
        """Width of a pixel divided by its height, after rotation."""
        return self._first[1]

    @cached_property
    def _first(self) -> tuple[tuple[int, int], Fraction]:
        with self._opened() as (container, stream):
            packets = VideoPackets(self._path, container, stream, _ignore)
            for decoded in self._decoded_from(packets, stream, _ignore):
                if _turn(decoded)[0]:
                    return (decoded.width, decoded.height), 1 / self._aspect
                return (decoded.height, decoded.width), self._aspect
        raise self._without_frames()

    def names(self) -> Sequence[str]:
        """``00000``, ``00001``, ..; the first call decodes the file, since headers do not reliably give the number."""
        return [f"{t:05d}" for t in range(len(self._all().stamps))]

    def times(self) -> Sequence[Fraction] | None:
        """Seconds from the first frame to each, and to the end of the last; None without usable time stamps."""
        return self._all().times()

    def damage(self) -> str:
        """Description of accepted damage; empty without damage."""
        return self._all().damage

    def fingerprint(self) -> str:
        """Hash of the file's size and of samples of its content."""
        return digest(samples(self._path, 1 << 20))

    def frame(self, index: int) -> Frame:
        """Decode a frame and all frames before it."""
        return next(islice(self.frames(), index, None))

    def frames(self) -> Generator[Frame, None, None]:
        """Decode the file.

        Raises:
            BadVideo: the file is damaged, or the size of frames changes.
        """
        reformatter = VideoReformatter()  # PyAV would make one for each frame, which takes longer than converting.
        turn = None
        for decoded in self._decoded():
            turn = turn or _turn(decoded)  # The same for all frames.
            image = reformatter.reformat(decoded, format="rgb24").to_ndarray()
            yield _upright(image.astype(np.uint8, copy=False), turn)

    def _all(self) -> _Decoded:
        if self._known is None:
            for _ in self._decoded():
                pass
        assert self._known is not None  # `_decoded` sets it when it ends.
        return self._known

    def _decoded(self) -> Generator[av.VideoFrame, None, None]:
        """Yield all frames (at least one) of the same size, without rotation."""
        stamps: list[int | None] = []
        faults: list[str] = []
        last = 0

        def found(fault: str) -> None:
            if not stamps and not stream.width:  # FFmpeg reports sizes beyond `LIMIT` as damage.
                raise BadVideo(
                    f"video {self._path} cannot be decoded: its frames are damaged, or beyond the limit of {MAX_SIDE} "
                    "pixels a side"
                )
            faults.append(f"{fault} after {len(stamps)} frames" if stamps else fault)
            if not self._accept_damaged:
                raise DamagedVideo(f"video {self._path} cannot be read: {faults[0]}; is it damaged or cut short?")

        with self._opened() as (container, stream):
            time_base = stream.time_base or Fraction(1)
            packets = VideoPackets(self._path, container, stream, found)
            for frame in self._decoded_from(packets, stream, found):
                stamps.append(frame.pts)
                last = frame.duration or 0
                yield frame
            if packets.end_early(stamps):
                found("it ends early,")
        if not stamps:
            raise self._without_frames()
        self._known = _Decoded(tuple(stamps), time_base, last, "".join(faults[:1]))

    def _decoded_from(
        self, packets: VideoPackets, stream: av.VideoStream, found: Found
    ) -> Generator[av.VideoFrame, None, None]:
        size: tuple[int, int] | None = None
        count = 0
        for packet in packets:
            for frame in self._frames_in(stream, packet, found):
                if frame.is_corrupt:
                    found("a frame is damaged")
                _require_size(self._path, frame.width, frame.height)
                size = size or (frame.width, frame.height)
                if (frame.width, frame.height) != size:
                    raise BadVideo(
                        f"video {self._path} changes from {size[0]} wide and {size[1]} high to {frame.width} wide and "
                        f"{frame.height} high at frame {count}; all frames of a video need one size"
                    )
                yield frame
                count += 1

    def _frames_in(self, stream: av.VideoStream, packet: Packet | None, found: Found) -> Sequence[av.VideoFrame]:
        try:
            return stream.codec_context.decode(packet)
        except av.FFmpegError as reason:
            if isinstance(reason, av.ArgumentError) and not stream.width:  # FFmpeg has reached `LIMIT`.
                raise BadVideo(
                    f"video {self._path} has larger frames than the limit, {MAX_SIDE} pixels a side"
                ) from reason
            found(reason.strerror or str(reason))
            return ()

    def _without_frames(self) -> BadVideo:
        return BadVideo(f"video {self._path} holds no frame that can be decoded; is it damaged?")

    @contextmanager
    def _opened(self) -> Generator[tuple[InputContainer, av.VideoStream], None, None]:
        try:
            with opened_container(self._path) as container:
                stream = main_stream(container.streams.video)
                if stream is None:
                    raise BadVideo(f"{self._path} has no video in it{_instead(container.streams.video)}")
                _require_size(self._path, stream.width, stream.height)
                # With threads per frame, FFmpeg would return damaged frames before it marks them.
                stream.thread_type = "SLICE"
                stream.codec_context.options = LIMIT
                yield container, stream
        except (av.FFmpegError, OSError) as reason:
            raise _unreadable(self._path, reason) from reason


def _unreadable(path: Path, reason: av.FFmpegError | OSError) -> BadVideo:
    """The error for a file that cannot be opened."""
    try:
        with open_file(path) as file:
            start = file.read(1024).lstrip(b"\xef\xbb\xbf \r\n\t")
    except OSError as error:
        return BadVideo(f"video {path} cannot be read: {error.strerror}")
    if start.startswith(_LISTS):
        return BadVideo(f"{path} is a list of other files or addresses; give the video file itself")
    if start and start.isascii() and b"\0" not in start:
        return BadVideo(f"{path} has no video in it; it is a text file")
    return BadVideo(f"video {path} cannot be read: {reason.strerror}; is it damaged or cut short?")


def _instead(streams: Sequence[av.VideoStream]) -> str:
    """What the file contains instead of a video that can be decoded."""
    if not streams:
        return ""
    if all(map(is_cover, streams)):
        return ", only a cover picture"
    return " that can be decoded; is it damaged, or of a rare codec?"


def _ignore(fault: str) -> None:
    """Ignore faults, to read only the beginning of a file."""


def _require_size(path: Path, width: int, height: int) -> None:
    if max(width, height) > MAX_SIDE:
        raise BadVideo(f"video {path} is {width} wide and {height} high; the limit is {MAX_SIDE} pixels a side")


def _turn(frame: av.VideoFrame) -> tuple[bool, bool, bool]:
    """Operations that make a frame upright: transpose, then flip vertically, then horizontally.

    Phones store rotated or mirrored pictures, with a matrix that tells players how to show them.
    """
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")  # Wrong in PyAV's types.
    if matrix is None:
        return False, False, False
    # FFmpeg's libavutil/display.h: x' = a x + c y, y' = b x + d y, in units of 1 / 65536.
    a, b, _, c, d = (round(value / 65536) for value in np.frombuffer(bytes(matrix), "=i4", 5).tolist())
    return (True, b < 0, c < 0) if a == d == 0 else (False, d < 0, a < 0)


def _upright(image: Frame, turn: tuple[bool, bool, bool]) -> Frame:
    """Rotate and mirror a stored frame, uint8 RGB [H, W, 3]."""
    transposed, upside_down, mirrored = turn
    if not (transposed or upside_down or mirrored):
        return image
    image = image.transpose(1, 0, 2) if transposed else image
    return np.ascontiguousarray(image[:: -1 if upside_down else 1, :: -1 if mirrored else 1])
