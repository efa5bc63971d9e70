"""Fast coding of the PNG files that object masks come in.

Pillow inflates a PNG row by row. Masks compress a hundredfold, and inflating one at once takes a third of the time
(a tenth for packed ids), which is most of what scoring a frame costs.
"""

from __future__ import annotations

import struct
import zlib
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from zlib_ng import zlib_ng

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = struct.Struct(">8sI4sIIBBBBBI")  # Signature, then the IHDR chunk.
_GREY, _PALETTE = 0, 3  # Colour types.
_SUB = 1  # The row filter that stores the difference to the left neighbour.


def decode_plain(file: BinaryIO, max_side: int) -> npt.NDArray[np.uint8] | None:
    """Decode a PNG if it is of the plain kind: a palette or grey, at most 8 bits, rows unfiltered or all alike.

    Args:
        file: at its start.
        max_side: larger images are not decoded.

    Returns:
        The stored values, uint8 [H, W], or None for every other file, also a damaged one: leave those to Pillow.
    """
    start = file.read(_HEADER.size)
    if len(start) < _HEADER.size:
        return None
    signature, _, kind, width, height, bits, colour, _, _, interlaced, _ = _HEADER.unpack(start)
    if signature != _SIGNATURE or kind != b"IHDR":
        return None
    if colour not in (_GREY, _PALETTE) or bits not in (1, 2, 4, 8) or interlaced:
        return None
    if min(width, height) == 0 or max(width, height) > max_side:
        return None
    stride = 1 + (width * bits + 7) // 8
    packed = _inflate(_image_data(file.read()), height * stride)
    if packed is None:
        return None
    rows = np.frombuffer(packed, dtype=np.uint8).reshape(height, stride)
    filters, values = rows[:, 0], rows[:, 1:]
    if not filters.any():
        return np.ascontiguousarray(_unpack(values, bits)[:, :width])
    if bits == 8 and (filters == _SUB).all():
        return np.cumsum(values, axis=1, dtype=np.uint8)
    return None


def _image_data(data: bytes) -> bytes:
    """What the IDAT chunks hold, joined; `data` is what follows the header."""
    parts: list[bytes] = []
    start = 0
    while start + 12 <= len(data):
        length, kind = struct.unpack(">I4s", data[start : start + 8])
        if kind == b"IDAT":
            parts.append(data[start + 8 : start + 8 + length])
        start += 12 + length
    return b"".join(parts)


def _inflate(compressed: bytes, size: int) -> bytes | None:
    """The `size` bytes that were compressed, or None where there are fewer or more or the checksum is wrong."""
    inflater = zlib_ng.decompressobj()
    try:
        plain: bytes = inflater.decompress(compressed, size + 1)
    except zlib_ng.error:  # type: ignore[misc]  # The stub calls it a value.
        return None
    return plain if len(plain) == size and inflater.eof else None


def _unpack(values: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.uint8]:
    """Spread bytes that hold 8 / bits values each, the leftmost in the highest bits."""
    if bits == 8:
        return values
    if bits == 1:
        return np.unpackbits(values, axis=1)
    shifts = _shifts(bits)
    spread = (np.arange(256, dtype=np.uint8)[:, None] >> shifts) & np.uint8((1 << bits) - 1)  # [byte, value]
    return np.take(spread.view(f"u{8 // bits}")[:, 0], values, mode="clip").view(np.uint8)


def encode_palette(values: npt.NDArray[np.uint8], bits: int, palette: npt.NDArray[np.uint8]) -> bytes:
    """Encode a palette PNG.

    Args:
        values: uint8 [H, W], all below 2 ** bits.
        bits: 1, 2, 4 or 8.
        palette: uint8 RGB [2 ** bits, 3].

    Returns:
        The file.
    """
    height, width = values.shape
    packed = _pack(values, bits)
    rows = np.zeros((height, 1 + packed.shape[1]), dtype=np.uint8)  # The first byte of a row says: no filter.
    rows[:, 1:] = packed
    header = struct.pack(">IIBBBBB", width, height, bits, _PALETTE, 0, 0, 0)
    chunks = (
        (b"IHDR", header),
        (b"PLTE", palette.tobytes()),
        (b"IDAT", zlib_ng.compress(rows.tobytes(), 3)),
        (b"IEND", b""),
    )
    return _SIGNATURE + b"".join(_chunk(kind, content) for kind, content in chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _pack(values: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.uint8]:
    """Put 8 / bits values into each byte, the leftmost in the highest bits; the last byte of a row is filled up."""
    if bits == 8:
        return values
    if bits == 1:
        return np.packbits(values, axis=1)
    per_byte = 8 // bits
    padded = np.pad(values, ((0, 0), (0, -values.shape[1] % per_byte)))
    packed = np.zeros((len(values), padded.shape[1] // per_byte), dtype=np.uint8)
    for position, shift in enumerate(_shifts(bits)):
        packed |= padded[:, position::per_byte] << shift
    return packed


def _shifts(bits: int) -> npt.NDArray[np.uint8]:
    return np.arange(8 - bits, -1, -bits, dtype=np.uint8)
