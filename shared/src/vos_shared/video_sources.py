"""Sources of frames for a `Video`: image files and arrays; video files are in `vos_shared.video_file`."""

from __future__ import annotations

import glob
import hashlib
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from vos_shared.errors import BadVideo
from vos_shared.files import open_file, read_bytes
from vos_shared.images import open_image, orientation, upright, upright_size
from vos_shared.method import Frame

FRAME_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})


class FrameSource(Protocol):
    """Frames in order; can be read repeatedly."""

    @property
    def fps(self) -> float | None:
        """Frames a second; None if unknown."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""

    @property
    def pixel_aspect(self) -> Fraction:
        """Width of a pixel divided by its height."""

    def names(self) -> Sequence[str]:
        """Names of the frames."""

    def times(self) -> Sequence[Fraction] | None:
        """Seconds from the first frame to each, and to the end of the last; None if unknown."""

    def damage(self) -> str:
        """Description of accepted damage; empty without damage."""

    def frames(self) -> Generator[Frame, None, None]:
        """Decode the frames, in order."""

    def frame(self, index: int) -> Frame:
        """Decode one frame."""

    def fingerprint(self) -> str:
        """Hash of samples of the content, which identifies the input of finished results."""


class _Untimed:
    """A source without times, shape of pixels, and damage."""

    fps = None
    pixel_aspect = Fraction(1)

    def times(self) -> None:
        """Unknown."""

    def damage(self) -> str:
        """No damage."""
        return ""


class FileFrames(_Untimed):
    """Frames in image files."""

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
        """File names without suffix."""
        return [path.stem for path in self._paths]

    def fingerprint(self) -> str:
        """Hash of the name and size of each file and of samples of its content."""
        return digest(*(part for path in self._paths for part in (path.name.encode(), _of_file(path))))

    def frames(self) -> Generator[Frame, None, None]:
        """Decode the files.

        Raises:
            BadVideo: a file is missing or damaged, or its size differs from that of the first frame.
        """
        for index in range(len(self._paths)):
            yield self.frame(index)

    def frame(self, index: int) -> Frame:
        """Decode one file.

        Raises:
            BadVideo: the file is missing or damaged, or its size differs from that of the first frame.
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
        BadVideo: the file is missing, damaged or too large, or has more than 8 bits a channel.
    """
    with open_image(path, "frame", BadVideo) as image:
        # Pillow would truncate RGB of 16 bits to 8; only the layout of the file shows its bits.
        if image.mode[0] in "IF" or any(str(tile.args).endswith(";16B") for tile in image.tile):
            raise BadVideo(f"frame {path} has more than 8 bits a channel ({image.mode}); store it with 8")
        frame = image if image.mode == "RGB" else image.convert("RGB")
        return np.array(upright(frame, orientation(image)))


class ArrayFrames(_Untimed):
    """Frames in memory, uint8 [T, H, W, 3]."""

    def __init__(self, array: Frame) -> None:
        if array.dtype != np.uint8 or array.ndim != 4 or array.shape[-1] != 3 or array.size == 0:
            raise BadVideo(f"array is {array.dtype} {list(array.shape)}; a video is uint8 [T, H, W, 3], RGB")
        self._array = array
        self.size = array.shape[1], array.shape[2]

    def names(self) -> Sequence[str]:
        """``00000``, ``00001``, .."""
        return [f"{t:05d}" for t in range(len(self._array))]

    def frames(self) -> Generator[Frame, None, None]:
        """Views of the frames."""
        yield from self._array

    def frame(self, index: int) -> Frame:
        """View of a frame."""
        view: Frame = self._array[index]
        return view

    def fingerprint(self) -> str:
        """Hash of all values."""
        return digest(repr(self._array.shape).encode(), self._array.tobytes())


def _of_file(path: Path) -> bytes:
    """Samples of an image file; the whole file if edits do not change its size."""
    return read_bytes(path) if path.suffix.lower() == ".bmp" else samples(path, 1 << 12)


def samples(path: Path, length: int) -> bytes:
    """The size of a file, and `length` bytes each from its beginning, middle and end."""
    size = path.stat().st_size
    with open_file(path) as file:
        parts = [str(size).encode()]
        for start in (0, max(0, size - length) // 2, max(0, size - length)):
            file.seek(start)
            parts.append(file.read(length))
    return b"\0".join(parts)


def digest(*parts: bytes) -> str:
    """Hash of some content with 16 digits."""
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def frame_files(folder: Path) -> list[Path]:
    """Image files of a folder in natural order (2.jpg before 10.jpg), without hidden files."""
    files = (path for path in folder.iterdir() if path.suffix.lower() in FRAME_SUFFIXES)
    return naturally_sorted(path for path in files if not path.name.startswith("."))


def matching_paths(pattern: str | Path) -> list[Path]:
    """Paths that match a glob pattern, in natural order; absolute patterns and ``**`` are supported."""
    return sorted(map(Path, glob.iglob(str(pattern), recursive=True)), key=natural_key)  # noqa: PTH207 - absolute patterns too


def naturally_sorted(paths: Iterable[Path]) -> list[Path]:
    """Sort frames by name, with runs of digits, or decimal numbers (``time.time()``), by their value.

    Raises:
        BadVideo: it is not clear whether the names contain decimal or whole numbers.
    """
    files = sorted(paths, key=natural_key)
    numbers = [match for path in files if (match := _DECIMAL.fullmatch(path.stem))]
    if len(numbers) < len(files):
        return files
    values = [(_numbers_by_value(match[1]), Decimal(f"{match[2]}.{match[3]}")) for match in numbers]
    by_value = [path for _, path in sorted(zip(values, files, strict=True))]
    if by_value != files and not _are_decimal(numbers, sorted(value for _, value in values)):
        raise BadVideo(
            f"{files[0].parent}: the order of {by_value[0].name} .. {by_value[-1].name} is not clear, since their "
            "numbers may be decimal or not; write as many digits after each point"
        )
    return by_value


def require_certain_order(files: Sequence[Path]) -> None:
    """Check that the names of frames (in natural order) have no other meaning with a different order.

    Raises:
        BadVideo: names may be hexadecimal numbers, dates or negative numbers, which have another order.
    """
    stems = [path.stem.lower() for path in files]
    for kind, key in _other_readings(stems):
        by_kind = sorted(stems, key=key)
        if by_kind != stems:
            raise BadVideo(
                f"{files[0].parent}: the order of {files[0].name} .. {files[-1].name} is not clear, since their names "
                f"may be {kind}; number them 00000, 00001, .."
            )


def _other_readings(stems: Sequence[str]) -> Iterator[tuple[str, Callable[[str], Any]]]:
    """Other possible meanings of names than text with whole numbers, and their sort keys."""
    together = "".join(stems)
    same_length = len({len(stem) for stem in stems}) == 1
    if same_length and re.fullmatch(r"[0-9a-f]*", together) and not together.isdecimal() and not together.isalpha():
        yield "hexadecimal numbers", str
    if all(re.fullmatch(r"\d{1,2}[-_.]\d{1,2}[-_.]\d{4}", stem) for stem in stems):
        dates = "dates with the year at the end"
        yield dates, lambda stem: tuple(int(stem_part) for stem_part in re.split(r"[-_.]", stem))[::-1]
        yield dates, lambda stem: tuple(int(re.split(r"[-_.]", stem)[place]) for place in (2, 0, 1))
    if all(re.fullmatch(r"-?\d+", stem) for stem in stems) and {stem[0] == "-" for stem in stems} == {True, False}:
        yield "negative numbers", int


_DECIMAL = re.compile(r"(.*?)(\d+)\.(\d+)")


def _are_decimal(numbers: Sequence[re.Match[str]], values: Sequence[Decimal]) -> bool:
    """Whether numbers with a point are certainly decimal, as Python prints seconds, and not pairs of whole numbers.

    Decimal numbers do not end in zero; and they are long, have zeros after the point, or have constant steps.
    """
    wholes, fractions = [match[2] for match in numbers], [match[3] for match in numbers]
    if any(fraction[1:].endswith("0") for fraction in fractions):
        return False
    is_long = max(map(len, wholes)) >= 9 or max(map(len, fractions)) >= 5  # Seconds since 1970, or high precision.
    has_zeros = any(fraction[:-1].startswith("0") for fraction in fractions)
    steps = {after - before for before, after in pairwise(values)}
    return is_long or has_zeros or (len(steps) == 1 and len(values) > 2)


def natural_key(path: Path) -> tuple[list[tuple[int, int, str]], Path]:
    """Sort key: the name without suffix, with runs of digits by their value."""
    return _numbers_by_value(path.stem), path


def _numbers_by_value(name: str) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", name)
    return [(1, int(part), part) if part.isdecimal() else (0, 0, part) for part in parts]
