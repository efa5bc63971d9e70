"""What a `Video` can be made of: frame files, a video file, an array."""

from __future__ import annotations

import glob
import hashlib
import re
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import av
import av.logging
import numpy as np
from av.stream import Disposition

from vos_shared.errors import BadVideo
from vos_shared.files import open_file, read_bytes, require_regular_file
from vos_shared.images import open_image, orientation, upright, upright_size
from vos_shared.method import Frame

FRAME_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})


class FrameSource(Protocol):
    """Frames in order, as often as they are asked for."""

    @property
    def fps(self) -> float | None:
        """Frames a second, where known."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""

    def names(self) -> Sequence[str]:
        """Name of each frame."""

    def frames(self) -> Generator[Frame, None, None]:
        """Decode the frames, in order."""

    def frame(self, index: int) -> Frame:
        """Decode one frame."""

    def fingerprint(self) -> str:
        """Of samples of the content, so it is quick: what a finished result was made from is looked up with it."""


class FileFrames:
    """One image file a frame."""

    fps = None

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._size: tuple[int, int] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the first frame, from its header."""
        if self._size is None:
            with open_image(self._paths[0], "frame", BadVideo) as image:
                self._size = upright_size(image)
        return self._size

    def names(self) -> Sequence[str]:
        """The files' names without suffix."""
        return [path.stem for path in self._paths]

    def fingerprint(self) -> str:
        """Of the name and size of each file, and of samples of its content."""
        return _digest(*(part for path in self._paths for part in (path.name.encode(), _of_file(path))))

    def frames(self) -> Generator[Frame, None, None]:
        """Decode the files.

        Raises:
            BadVideo: a file is missing, damaged, or not of the first frame's size.

        """
        for index in range(len(self._paths)):
            yield self.frame(index)

    def frame(self, index: int) -> Frame:
        """Decode one file.

        Raises:
            BadVideo: it is missing, damaged, or not of the first frame's size.

        """
        height, width = self.size
        path = self._paths[index]
        frame = read_frame(path)
        if frame.shape[:2] != (height, width):
            raise BadVideo(
                f"frame {path} is {frame.shape[1]} wide and {frame.shape[0]} high, "
                f"the first frame {width} wide and {height} high; all frames of a video need one size"
            )
        return frame


def read_frame(path: Path) -> Frame:
    """Decode an image file as RGB, uint8 [H, W, 3].

    Raises:
        BadVideo: missing, damaged, too large, or with more than 8 bits a channel.

    """
    with open_image(path, "frame", BadVideo) as image:
        # Pillow calls colour of 16 bits RGB like any other, and would cut it to 8; the layout in the file tells.
        if image.mode[0] in "IF" or any(str(tile.args).endswith(";16B") for tile in image.tile):
            raise BadVideo(f"frame {path} has more than 8 bits a channel ({image.mode}); store it with 8")
        frame = image if image.mode == "RGB" else image.convert("RGB")
        return np.array(upright(frame, orientation(image)))


class FileVideo:
    """A video file, decoded by FFmpeg."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._opened() as (_, stream):
            rate = stream.average_rate or stream.guessed_rate
            self.fps = float(rate) if rate else None
        self._size: tuple[int, int] | None = None
        self._length: int | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the first frame as it is shown, that is, rotated."""
        if self._size is None:
            frame = next(self.frames())
            self._size = frame.shape[0], frame.shape[1]
        return self._size

    def names(self) -> Sequence[str]:
        """``00000``, ``00001``, ..; the first call decodes the file, since no header tells the number reliably."""
        if self._length is None:
            self._length = sum(1 for _ in self._decoded())
        return [f"{t:05d}" for t in range(self._length)]

    def fingerprint(self) -> str:
        """Of the file's size, and of samples of its content."""
        return _digest(_samples(self._path, 1 << 20))

    def frame(self, index: int) -> Frame:
        """Decode one frame, and all those before it: the cost grows with the index."""
        return next(islice(self.frames(), index, None))

    def frames(self) -> Generator[Frame, None, None]:
        """Decode the file.

        Raises:
            BadVideo: damaged, or the frames change their size.

        """
        count = 0
        size: tuple[int, int] | None = None
        for decoded in self._decoded():
            frame = _upright(decoded)
            size = size or (frame.shape[0], frame.shape[1])
            if frame.shape[:2] != size:
                raise BadVideo(
                    f"video {self._path} changes from {size[1]} wide and {size[0]} high to {frame.shape[1]} wide "
                    f"and {frame.shape[0]} high at frame {count}; all frames of a video need one size"
                )
            yield frame
            count += 1
        self._length = count

    def _decoded(self) -> Generator[av.VideoFrame, None, None]:
        """At least one frame, as stored."""
        frame = None
        with self._opened() as (container, stream):
            for packet in container.demux(stream):
                if packet.is_corrupt:
                    raise av.InvalidDataError(0, "a packet is cut short")
                for frame in packet.decode():
                    yield frame
        if frame is None:
            raise BadVideo(f"video {self._path} holds no frame that can be decoded; is it damaged?")

    @contextmanager
    def _opened(self) -> Generator[tuple[av.container.InputContainer, av.VideoStream], None, None]:
        try:
            silence_ffmpeg()
            _require_file(self._path)
            with av.open(str(self._path), metadata_errors="replace") as container:
                # FFmpeg draws text files (format tty) as terminals showed them.
                if not container.streams.video or container.format.name == "tty":
                    raise BadVideo(f"{self._path} has no video in it")
                stream = _main_stream(container.streams.video)
                stream.thread_type = "AUTO"
                yield container, stream
        except av.FFmpegError as reason:
            raise BadVideo(
                f"video {self._path} cannot be read: {reason.strerror}; is it damaged or cut short?"
            ) from reason


def _require_file(path: Path) -> None:
    """FFmpeg would wait for a pipe or a device."""
    try:
        require_regular_file(path)
    except OSError as reason:
        raise BadVideo(f"video {path} cannot be read: {reason.strerror}") from None


def _main_stream(streams: Sequence[av.VideoStream]) -> av.VideoStream:
    """The largest that is not a cover picture; of equal ones the first."""
    videos = [stream for stream in streams if not stream.disposition & Disposition.attached_pic]
    return max(videos or streams, key=lambda stream: stream.width * stream.height)


def silence_ffmpeg() -> None:
    """Let FFmpeg drop its messages by itself; call it before a file is opened.

    PyAV drops them too, but takes Python's lock for it, on FFmpeg's threads: closing a video whose threads have
    something to say while Python holds the lock would wait for ever.
    """
    av.logging.restore_default_callback()
    av.logging.set_libav_level(av.logging.PANIC)


def _upright(frame: av.VideoFrame) -> Frame:
    """The frame as players show it: phones store pictures lying or mirrored, with a matrix that says how."""
    image: Frame = frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")  # PyAV's types call it a name.
    if matrix is None:
        return image
    # FFmpeg's libavutil/display.h: x' = a x + c y, y' = b x + d y, in units of 1 / 65536.
    a, b, _, c, d = (round(value / 65536) for value in np.frombuffer(bytes(matrix), "=i4", 5).tolist())
    if a == d == 0:
        image, a, d = image.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


class ArrayFrames:
    """Frames in memory, uint8 [T, H, W, 3]."""

    fps = None

    def __init__(self, array: Frame) -> None:
        if array.dtype != np.uint8 or array.ndim != 4 or array.shape[-1] != 3 or array.size == 0:
            raise BadVideo(f"array is {array.dtype} {list(array.shape)}; a video is uint8 [T, H, W, 3], RGB")
        self._array = array
        self.size = array.shape[1], array.shape[2]

    def names(self) -> Sequence[str]:
        """``00000``, ``00001``, .."""
        return [f"{t:05d}" for t in range(len(self._array))]

    def frames(self) -> Generator[Frame, None, None]:
        """The frames, views of the array."""
        yield from self._array

    def frame(self, index: int) -> Frame:
        """One frame, a view of the array."""
        view: Frame = self._array[index]
        return view

    def fingerprint(self) -> str:
        """Of all values."""
        return _digest(repr(self._array.shape).encode(), self._array.tobytes())


def _of_file(path: Path) -> bytes:
    """Samples of an image file; all of it where an edit would not change its length."""
    return read_bytes(path) if path.suffix.lower() == ".bmp" else _samples(path, 1 << 12)


def _samples(path: Path, length: int) -> bytes:
    """The size of a file and what it holds at its beginning, middle and end, `length` bytes each."""
    size = path.stat().st_size
    with open_file(path) as file:
        parts = [str(size).encode()]
        for start in (0, max(0, size - length) // 2, max(0, size - length)):
            file.seek(start)
            parts.append(file.read(length))
    return b"\0".join(parts)


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def frame_files(folder: Path) -> list[Path]:
    """Image files of a folder in natural order (2.jpg before 10.jpg); hidden files are left out."""
    files = (path for path in folder.iterdir() if path.suffix.lower() in FRAME_SUFFIXES)
    return naturally_sorted(path for path in files if not path.name.startswith("."))


def matching_paths(pattern: str | Path) -> list[Path]:
    """What a glob pattern matches, in natural order; absolute patterns and ``**`` too."""
    return naturally_sorted(Path(match) for match in glob.iglob(str(pattern), recursive=True))  # noqa: PTH207 - absolute patterns too


def naturally_sorted(paths: Iterable[Path]) -> list[Path]:
    """Sort by name, runs of digits by their value; names that are decimal numbers (``time.time()``) by theirs.

    Raises:
        BadVideo: names of which it is not clear whether they hold decimal numbers or whole ones.
    """
    files = list(paths)
    stems = [_DECIMAL.fullmatch(path.stem) for path in files]
    numbers = [match for match in stems if match]
    if len(numbers) != len(files) or len({len(match[3]) for match in numbers}) < 2:
        return sorted(files, key=_natural_key)  # Of as many digits after each point both orders are the same.
    by_value = [path for _, path in sorted(zip(map(_decimal_key, numbers), files, strict=True))]
    if any(match[1] for match in numbers) and by_value != sorted(files, key=_natural_key):
        raise BadVideo(
            f"{files[0].parent}: the order of {by_value[0].name} .. {by_value[-1].name} is not clear, since their "
            "numbers may be decimal or not; write as many digits after each point"
        )
    return by_value


_DECIMAL = re.compile(r"(.*?)(\d+)\.(\d+)")


def _decimal_key(match: re.Match[str]) -> tuple[str, Decimal]:
    return match[1], Decimal(f"{match[2]}.{match[3]}")


def _natural_key(path: Path) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", path.name)
    return [(1, int(part), part) if part.isdecimal() else (0, 0, part) for part in parts]
