"""Videos: lazy reading from any source, and writing as H.264."""

from __future__ import annotations

import glob
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import av
import numpy as np

from vos_shared.atomic import atomic_path
from vos_shared.demuxing import opened_container, silence_ffmpeg
from vos_shared.errors import BadVideo
from vos_shared.method import Frame
from vos_shared.readahead import read_ahead
from vos_shared.runtime.timing import Stopwatch, timed
from vos_shared.tables import listed
from vos_shared.video_file import FileVideo
from vos_shared.video_sources import (
    FRAME_SUFFIXES,
    ArrayFrames,
    FileFrames,
    FrameSource,
    frame_files,
    matching_paths,
    naturally_sorted,
    require_certain_order,
)


class Video:
    """Frames in order; each iteration decodes them on a thread, a few frames ahead. Use `open` or `from_files`.

    Attributes:
        name: name of the folder or file, for messages and results.
        origin: absolute path of the source (file, folder of frames, pattern); empty for an array.
    """

    def __init__(self, source: FrameSource, name: str, *, origin: str | Path = "") -> None:
        _require_text([name])
        self._source = source
        self.name = name
        self.origin = str(_full(origin)) if origin else ""

    @classmethod
    def open(cls, source: str | Path | Frame, *, name: str | None = None, accept_damaged: bool = False) -> Video:
        """Open a folder of frames, a glob pattern, an image or video file, or an array.

        Args:
            source: the path or pattern, or frames as uint8 RGB [T, H, W, 3].
            name: name of the video; by default that of the folder, or of the file without suffix.
            accept_damaged: use the frames that can be decoded of a video file that is damaged or cut short; `damage`
                describes the fault.

        Raises:
            BadVideo: the source is missing or not a video. Damaged frames are found when they are read.
        """
        if isinstance(source, np.ndarray):
            return cls(ArrayFrames(source), name or "array")
        path = Path(source)
        if path.is_dir():
            return cls.from_files(_files_in(path), name=name or _full(path).name, origin=path)
        if path.is_file():
            if path.suffix.lower() in FRAME_SUFFIXES:
                return cls.from_files([path], name=name or path.stem, origin=path)
            return cls(FileVideo(path, accept_damaged=accept_damaged), name or path.stem, origin=path)
        if not glob.has_magic(str(source)):
            raise BadVideo(f"no such video: {source} is neither a file nor a folder")
        files = naturally_sorted(matching_paths(source))
        if not files:
            raise BadVideo(f"no file matches {source}")
        require_certain_order(files)
        return cls.from_files(files, name=name or _full(files[0]).parent.name, origin=source)

    @classmethod
    def from_files(cls, paths: Iterable[Path], *, name: str, origin: str | Path | None = None) -> Video:
        """A video from its frame files, in the order given.

        Args:
            paths: paths of the frames.
            name: name of the video.
            origin: folder or pattern of the files; by default the folder of the first.

        Raises:
            BadVideo: there is no file, or two have the same name (`00000.jpg` and `00000.png`) and so the same mask.
        """
        files = list(paths)
        if not files:
            raise BadVideo(f"video {name} has no frames")
        _require_text(path.stem for path in files)
        doubles = [stem for stem, count in Counter(path.stem for path in files).items() if count > 1]
        if doubles:
            raise BadVideo(
                f"{files[0].parent} holds more than one frame called {listed(doubles, most=3)}; keep frames and "
                "masks in folders of their own"
            )
        return cls(FileFrames(files), name, origin=origin or files[0].parent)

    @cached_property
    def frame_names(self) -> Sequence[str]:
        """Names of the frames such as ``00000``; the frames of a video file are counted once, by decoding it."""
        return tuple(self._source.names())

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frames."""
        return self._source.size

    @property
    def fps(self) -> float | None:
        """Frames a second, where known; the mean where frames are not shown equally long."""
        return self._source.fps

    @property
    def times(self) -> Sequence[Fraction] | None:
        """Seconds from the first frame to each, and to the end of the last; None if unknown."""
        return self._source.times()

    @property
    def pixel_aspect(self) -> Fraction:
        """Width of a pixel divided by its height; not 1 for some video files."""
        return self._source.pixel_aspect

    @property
    def damage(self) -> str:
        """Description of accepted damage of a video file, which is decoded for it; empty without damage."""
        return self._source.damage()

    def fingerprint(self) -> str:
        """Hash that identifies the frames, from the sizes of files and samples of their content, without decoding."""
        try:
            return self._source.fingerprint()
        except OSError as reason:
            raise BadVideo(f"video {self.name} cannot be read: {reason}") from reason

    def __len__(self) -> int:
        return len(self.frame_names)

    def __getitem__(self, index: int) -> Frame:
        """Decode one frame, uint8 RGB [H, W, 3]; cheap for image files and arrays, not for video files.

        Raises:
            BadVideo: the frame is damaged, or its size differs.
            IndexError: there is no such frame.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"video {self.name} has {len(self)} frames, none of number {index}")
        return self._source.frame(index)

    def __iter__(self) -> Iterator[Frame]:
        """Decode from the first frame on: uint8 RGB [H, W, 3], all of one size.

        Raises:
            BadVideo: a frame is damaged, or its size differs.
        """
        frames = self._source.frames()
        return frames if isinstance(self._source, ArrayFrames) else read_ahead(frames)

    def __repr__(self) -> str:
        return f"Video({self.name!r})"


class TimedVideo(Video):
    """A video that measures the time of waiting for its frames in `waiting`."""

    def __init__(self, video: Video) -> None:
        super().__init__(video._source, video.name, origin=video.origin)
        self.waiting = Stopwatch()

    def __iter__(self) -> Iterator[Frame]:
        """As `Video`."""
        return timed(super().__iter__(), self.waiting)

    def __getitem__(self, index: int) -> Frame:
        """As `Video`."""
        with self.waiting:
            return super().__getitem__(index)


def _full(path: str | Path) -> Path:
    """The absolute path, without following links."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - Path.absolute keeps "..", Path.resolve follows links


def _require_text(names: Iterable[str]) -> None:
    """Raise `BadVideo` for names that are not valid UTF-8, which lists and records of results cannot contain."""
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise BadVideo(f"the file name {name!r} is not valid UTF-8; rename it") from None


def _files_in(folder: Path) -> list[Path]:
    files = frame_files(folder)
    if not files:
        raise BadVideo(f"folder {folder} holds no frames ({', '.join(sorted(FRAME_SUFFIXES))})")
    require_certain_order(files)
    return files


def video_comment(path: Path) -> str:
    """The comment in the metadata of a video file; empty if there is none."""
    try:
        with opened_container(path) as container:
            return container.metadata.get("comment", "")
    except (av.FFmpegError, OSError):
        return ""


class VideoWriter:
    """Writes an H.264 MP4 for all players and browsers, atomically.

    A last row or column is repeated if the height or width is odd, since 4:2:0 video needs even sizes.

    Args:
        path: path of the file.
        fps: frames a second.
        times: ascending start of each frame and end of the last, in seconds; replaces `fps`.
        pixel_aspect: width of a pixel divided by its height.
        comment: comment in the metadata of the file.

    Example:
        with VideoWriter("overlay.mp4", fps=24) as writer:
            writer.write(frame)
    """

    def __init__(
        self,
        path: str | Path,
        fps: float = 24,
        *,
        times: Sequence[Fraction] | None = None,
        pixel_aspect: Fraction = Fraction(1),
        comment: str = "",
    ) -> None:
        self.path = Path(path)
        self._comment = comment
        self._rate = max(Fraction(fps).limit_denominator(1001), Fraction(1, 1001))
        self._times = times
        self._unit = 1 / self._rate if times is None else _time_unit(times)
        self._pixel_aspect = pixel_aspect
        self._count = 0
        self._durations: dict[int, int] = {}  # Durations of frames in the encoder, by time stamp.
        self._stream: av.VideoStream | None = None
        self._size: tuple[int, int] | None = None

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            temporary = stack.enter_context(atomic_path(self.path))
            silence_ffmpeg()
            # FFmpeg could take a name without "file:" for an address.
            self._container = stack.enter_context(av.open(f"file:{temporary}", "w", format="mp4"))
            self._container.metadata["comment"] = self._comment
            self._stack = stack.pop_all()
        return self

    def write(self, frame: Frame) -> None:
        """Append a frame, uint8 RGB [H, W, 3].

        Raises:
            BadVideo: the size differs from that of the first frame.
        """
        height, width = frame.shape[:2]
        if self._stream is None:
            self._stream = self._add_stream(height, width)
            self._size = height, width
        if self._size != (height, width):
            raise BadVideo(f"{self.path}: frames of {self._size} and {(height, width)} (height, width) in one video")
        even = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        encoded = av.VideoFrame.from_ndarray(even, format="rgb24")
        encoded.pts, encoded.time_base = self._stamp(self._count), self._unit
        self._count += 1
        self._durations[encoded.pts] = self._stamp(self._count) - encoded.pts
        self._encode(self._stream, encoded)

    def _stamp(self, index: int) -> int:
        return index if self._times is None else round(self._times[index] / self._unit)

    def _encode(self, stream: av.VideoStream, frame: av.VideoFrame | None) -> None:
        for packet in stream.encode(frame):
            if packet.pts is not None:
                packet.duration = self._durations.pop(packet.pts)
            self._container.mux(packet)

    def _add_stream(self, height: int, width: int) -> av.VideoStream:
        stream = self._container.add_stream("libx264", rate=self._rate)
        stream.height, stream.width = height + height % 2, width + width % 2
        stream.pix_fmt = "yuv420p"
        # Without B-frames, packets are in the order of frames, and players show the last one to its end.
        stream.options = {"crf": "18", "preset": "fast", "bf": "0"}
        stream.codec_context.time_base = stream.time_base = self._unit
        stream.codec_context.sample_aspect_ratio = self._pixel_aspect
        return stream

    def __exit__(self, *raised: Any) -> None:
        if raised[0] is not None:
            self._stack.__exit__(*raised)
            return
        with self._stack:
            if self._stream is None:
                raise BadVideo(f"{self.path}: no frame was written")
            self._encode(self._stream, None)


def _time_unit(times: Sequence[Fraction]) -> Fraction:
    """Unit in seconds of which all times are multiples; a fine unit if MP4 cannot store that."""
    unit = Fraction(1, math.lcm(*(time.denominator for time in times)))
    return unit if unit >= Fraction(1, 1_000_000) else Fraction(1, 90_000)
