"""Fast decoding of PNG files of object masks.

Pillow inflates a PNG row by row. Masks compress a hundredfold; inflating them at once takes a third of the time (a
tenth for packed ids), which is most of the time for scoring a frame.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from zlib_ng import zlib_ng

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = struct.Struct(">8sI4sIIBBBBBI")  # Signature, then the IHDR chunk.
_GREY, _PALETTE = 0, 3  # Colour types.
_SUB = 1  # Row filter: difference to the left neighbour.


@dataclass(frozen=True)
class Colours:
    """The palette and transparency of a PNG.

    Attributes:
        palette: palette of an indexed image, uint8 RGB [N, 3]; otherwise None.
        transparency: content of the chunk tRNS, or empty. For an indexed image: opacity of its first colours, one byte
            each; for a grey image: the transparent grey value, two bytes.
    """

    palette: npt.NDArray[np.uint8] | None = None
    transparency: bytes = b""


def read_colours(data: bytes) -> Colours:
    """Read palette and transparency of a PNG file with this content.

    Raises:
        ValueError: the checksum of a chunk is wrong. Pillow checks none of those that hold pixels.
    """
    found: dict[bytes, bytes] = {}
    for kind, content in _chunks(data):
        found.setdefault(kind, content)
    palette = None
    if found.get(b"IHDR", b"")[9:10] == bytes([_PALETTE]):
        stored = found.get(b"PLTE", b"")[:768]
        palette = np.frombuffer(stored[: len(stored) // 3 * 3], np.uint8).reshape(-1, 3)
    return Colours(palette, found.get(b"tRNS", b""))


def decode_plain(data: bytes, max_side: int) -> npt.NDArray[np.uint8] | None:
    """Decode a simple PNG: palette or grey, at most 8 bits, rows unfiltered or all with the Sub filter.

    Args:
        data: content of the file.
        max_side: larger images are not decoded.

    Returns:
        The stored values, uint8 [H, W]; None for all other files, which Pillow must decode.

    Raises:
        ValueError: the checksum of a chunk is wrong.
    """
    if len(data) < _HEADER.size:
        return None
    signature, _, kind, width, height, bits, colour, _, _, interlaced, _ = _HEADER.unpack_from(data)
    if signature != _SIGNATURE or kind != b"IHDR":
        return None
    if colour not in (_GREY, _PALETTE) or bits not in (1, 2, 4, 8) or interlaced:
        return None
    if min(width, height) == 0 or max(width, height) > max_side:
        return None
    stride = 1 + (width * bits + 7) // 8
    compressed = b"".join(content for kind, content in _chunks(data) if kind == b"IDAT")
    packed = _inflate(compressed, height * stride)
    if packed is None:
        return None
    rows = np.frombuffer(packed, dtype=np.uint8).reshape(height, stride)
    filters, values = rows[:, 0], rows[:, 1:]
    if not filters.any():
        return np.ascontiguousarray(_unpack(values, bits)[:, :width])
    if bits == 8 and (filters == _SUB).all():
        return np.cumsum(values, axis=1, dtype=np.uint8)
    return None


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of all complete chunks up to the end of the image, after verifying their checksums."""
    if not data.startswith(_SIGNATURE):
        return
    start = len(_SIGNATURE)
    while start + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, start)
        end = start + 8 + length
        if end + 4 > len(data):
            return  # Pillow reports the missing end.
        if zlib.crc32(data[start + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise ValueError(f"the checksum of its chunk {kind!r} is wrong")
        yield kind, data[start + 8 : end]
        if kind == b"IEND":
            return
        start = end + 4


def _inflate(compressed: bytes, size: int) -> bytes | None:
    """The decompressed data; None if its length is not `size` or the checksum is wrong."""
    inflater = zlib_ng.decompressobj()
    try:
        plain: bytes = inflater.decompress(compressed, size + 1)
    except zlib_ng.error:  # type: ignore[misc]  # The stub calls it a value.
        return None
    return plain if len(plain) == size and inflater.eof else None


def _unpack(values: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.uint8]:
    """Unpack bytes that hold 8 / bits values each, the leftmost in the highest bits."""
    if bits == 8:
        return values
    if bits == 1:
        return np.unpackbits(values, axis=1)
    shifts = np.arange(8 - bits, -1, -bits, dtype=np.uint8)
    spread = (np.arange(256, dtype=np.uint8)[:, None] >> shifts) & np.uint8((1 << bits) - 1)  # [byte, value]
    return np.take(spread.view(f"u{8 // bits}")[:, 0], values, mode="clip").view(np.uint8)
