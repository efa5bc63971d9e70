"""Detection of video files that end before their container says so, which FFmpeg takes as the end of the video.

The elements of a file are walked by their lengths, without decoding. Unknown content is not judged.
"""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from vos_shared.files import open_file


def is_cut_off(path: Path, container: str) -> bool:
    """Whether an element with frames or sound reaches beyond the end of the file.

    Args:
        path: path of the file.
        container: FFmpeg's name of the format. The result is False for formats that are not walked here: MP4 has an
            index of its frames, and bare streams store no lengths.
    """
    walk = _WALKS.get(container)
    if walk is None:
        return False
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        return any(end > size for end in walk(file))


# Each of these yields the ends of the elements that hold frames or sound.


def _matroska(file: BinaryIO) -> Iterator[float]:
    """Elements of the first segment (RFC 9559)."""
    segment_end, last = math.inf, 0
    while file.tell() < segment_end and (identifier := _ebml_number(file)):
        length = _ebml_number(file)
        start = file.tell()
        if length is None:
            yield math.inf
            return
        end = math.inf if length[0] == (2 << 7 * length[1]) - 1 else start + length[0] - (1 << 7 * length[1])
        if identifier[0] == _SEGMENT:
            segment_end = end
        if identifier[0] not in _WITH_FRAMES | _WITHOUT_FRAMES:
            return
        if identifier[0] == _SEGMENT or end == math.inf:  # Live recordings have clusters of unknown length.
            continue
        if identifier[0] in _WITH_FRAMES:
            yield end
        last = identifier[0]
        file.seek(int(end))
    if last in _WITH_FRAMES and segment_end < math.inf:  # Otherwise the file ends in an element after the frames.
        yield segment_end


_SEGMENT: Final = 0x18538067
_WITH_FRAMES: Final = frozenset({0x1F43B675, 0xE7, 0xA3, 0xA0, 0xA7, 0xAB})
"""Cluster; in a cluster Timestamp, SimpleBlock, BlockGroup, Position, PrevSize."""
_WITHOUT_FRAMES: Final = frozenset(
    (
        0x1A45DFA3,
        _SEGMENT,
        0x114D9B74,
        0x1549A966,
        0x1654AE6B,
        0x1C53BB6B,
        0x1254C367,
        0x1043A770,
        0x1941A469,
        0xEC,
        0xBF,
    )
)
"""Header, Segment, SeekHead, Info, Tracks, Cues, Tags, Chapters, Attachments, Void, CRC-32."""


def _ebml_number(file: BinaryIO) -> tuple[int, int] | None:
    """A number of RFC 8794 with its marker bit, and its width in bytes; None at the end of the file."""
    first = file.read(1)
    width = 9 - first[0].bit_length() if first else 9
    rest = file.read(width - 1)
    return (int.from_bytes(first + rest), width) if width < 9 and len(rest) == width - 1 else None


def _avi(file: BinaryIO) -> Iterator[float]:
    """The lists ``movi``; in a recording that was not closed its length is 0."""
    while len(head := file.read(8)) == 8:
        length = int.from_bytes(head[4:], "little")
        start = file.tell()
        if head[:4] == b"RIFF":
            file.seek(start + 4)
            continue
        if head[:4] == b"LIST" and file.read(4) == b"movi" and length < 0xFFFFFFFF:
            yield start + length
        file.seek(start + length + length % 2)


def _asf(file: BinaryIO) -> Iterator[float]:
    """The data object after the header; its length is 0 in live streams."""
    file.seek(int.from_bytes(file.read(24)[16:], "little"))
    start, data = file.tell(), file.read(24)
    if data[:16] == bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c"):
        yield start + int.from_bytes(data[16:], "little")


def _flv(file: BinaryIO) -> Iterator[float]:
    """Tags of sound, video and metadata, each followed by its length."""
    file.seek(int.from_bytes(file.read(9)[5:]) + 4)
    while (head := file.read(11)) and head[0] & 31 in {8, 9, 18}:
        end = file.tell() + int.from_bytes(head[1:4])
        yield end if len(head) == 11 else math.inf
        file.seek(end + 4)


def _mpegts(file: BinaryIO) -> Iterator[float]:
    """Packets of constant length; on Blu-ray discs preceded by four bytes."""
    start = file.read(1024)
    for length, sync in ((188, 0), (192, 4), (204, 0)):
        if len(start) > sync + 4 * length and {start[sync + length * k] for k in range(5)} == {0x47}:
            size = file.seek(0, os.SEEK_END)
            file.seek(size // length * length + sync)
            if file.read(1) == b"\x47":  # An incomplete packet follows the last one.
                yield -(-size // length) * length
            return


def _ogg(file: BinaryIO) -> Iterator[float]:
    """Pages (RFC 3533)."""
    while (head := file.read(27))[:4] == b"OggS":
        lengths = file.read(head[26]) if len(head) == 27 else b""
        end = file.tell() + sum(lengths)
        yield end if len(head) == 27 and len(lengths) == head[26] else math.inf
        file.seek(end)


def _gif(file: BinaryIO) -> Iterator[float]:
    """Blocks up to the trailer; a file without a trailer is accepted."""
    file.seek(_table_end(6 + 7, file.read(13)[10:11]))
    while (kind := file.read(1)) in {b"\x21", b"\x2c"}:
        if kind == b"\x2c":
            start = file.tell()
            file.seek(_table_end(start + 9, file.read(9)[8:]))
        file.read(1)  # Label of an extension, or size of the first code of an image.
        while length := file.read(1) or b"\xff":
            if length == b"\0":
                break
            end = file.tell() + length[0]
            yield end
            file.seek(end)


def _table_end(start: int, flags: bytes) -> int:
    """The end of a colour table, which exists if the highest bit of the flags is set."""
    return start + (3 << (flags[0] & 7) + 1 if flags and flags[0] & 128 else 0)


def _mxf(file: BinaryIO) -> Iterator[float]:
    """Triplets of key, length and value (SMPTE 336M)."""
    while (key := file.read(16))[:4] == bytes.fromhex("060e2b34"):
        short = file.read(1) or b"\xff"
        length = short[0] if short[0] < 128 else int.from_bytes(file.read(short[0] & 127))
        end = file.tell() + length
        yield end if len(key) == 16 else math.inf
        file.seek(end)


def _jpegs(file: BinaryIO) -> Iterator[float]:
    """Pictures (ITU T.81): the last start of scan must be followed by an end of image; neither occurs in a scan."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content.find(b"\xff\xd9", content.rfind(b"\xff\xda")) < 0:
            yield math.inf


_WALKS: Final[dict[str, Callable[[BinaryIO], Iterator[float]]]] = {
    "asf": _asf,
    "avi": _avi,
    "flv": _flv,
    "gif": _gif,
    "jpeg_pipe": _jpegs,
    "matroska,webm": _matroska,
    "mjpeg": _jpegs,
    "mpegts": _mpegts,
    "mxf": _mxf,
    "ogg": _ogg,
}
