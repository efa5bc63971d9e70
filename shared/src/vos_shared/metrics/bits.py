"""Binary masks with 64 pixels in a word, and the operations on them for J and F.

A packed mask is uint64 [H, words]: pixel x of a row is bit x % 64 of word x // 64. There is at least one spare bit
after the last pixel, and spare bits are 0.
"""

from __future__ import annotations

from math import isqrt
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Bits: TypeAlias = npt.NDArray[np.uint64]

WORD = 64


def pack(mask: npt.NDArray[Any]) -> Bits:
    """Pack a mask [H, W], in which nonzero is the object, into uint64 [H, W // 64 + 1]."""
    height, width = mask.shape
    packed = np.zeros((height, (width // WORD + 1) * 8), dtype=np.uint8)
    packed[:, : (width + 7) // 8] = np.packbits(mask, axis=1, bitorder="little")
    return packed.view("<u8")


def count(bits: Bits) -> int:
    """Number of set pixels."""
    return int(np.bitwise_count(bits).sum())


def boundary(bits: Bits, width: int) -> Bits:
    """Pixels that differ from their right, lower, or lower right neighbour.

    The image is continued beyond its edge by the last row and column, so that the edge is not a boundary.

    Args:
        bits: packed mask, uint64 [H, words].
        width: width of the image in pixels.
    """
    word, bit = divmod(width, WORD)
    last = (bits[:, (width - 1) // WORD] >> ((width - 1) % WORD)) & 1
    here = bits.copy()
    here[:, word] |= last << bit
    right: Bits = np.right_shift(here, 1)
    right[:, :-1] |= here[:, 1:] << (WORD - 1)
    differs: Bits = here ^ right
    differs[:-1] |= (here[:-1] ^ here[1:]) | (here[:-1] ^ right[1:])
    differs[:, word] &= np.uint64((1 << bit) - 1)
    return differs


def dilate(bits: Bits, radius: int) -> Bits:
    """Dilation by a disk: all pixels within `radius` of a set pixel.

    Works in the bounding box of the set pixels, enlarged by the radius.

    Args:
        bits: packed mask, uint64 [H, words].
        radius: radius in pixels; the disk is x² + y² <= radius².

    Returns:
        uint64 [H, words]; spare bits may be set.
    """
    dilated = np.zeros_like(bits)
    rows, words = np.flatnonzero(bits.any(axis=1)), np.flatnonzero(bits.any(axis=0))
    if len(rows) == 0:
        return dilated
    reach = -(-radius // WORD)
    top, left = max(rows[0] - radius, 0), max(words[0] - reach, 0)
    box = bits[top : rows[-1] + radius + 1, left : words[-1] + reach + 1]
    height, width = box.shape
    # Empty words between the rows allow treating them as one long line: no dilation reaches the next row.
    line = np.zeros((height, width + reach), dtype=np.uint64)
    line[:, :width] = box
    disk = _dilate_line(line.ravel(), width + reach, radius).reshape(line.shape)
    dilated[top : top + height, left : left + width] = disk[:, :width]
    return dilated


def _dilate_line(line: Bits, stride: int, radius: int) -> Bits:
    """Dilate by each row of the disk, from the narrow ends to the middle; each step spreads the one before further.

    Args:
        line: concatenated rows of an image, uint64 [H * stride].
        stride: words per row.
        radius: radius of the disk.
    """
    dilated = np.zeros_like(line)
    spread, reached = line, 0
    for dy in range(radius, -1, -1):
        half_width = isqrt(radius * radius - dy * dy)
        while reached < half_width:
            step = min(half_width - reached, 2 * reached + 1, WORD - 1)
            spread, reached = _spread(spread, step), reached + step
        shift = min(dy * stride, len(line))
        dilated[shift:] |= spread[: len(line) - shift]
        dilated[: len(line) - shift] |= spread[shift:]
    return dilated


def _spread(line: Bits, step: int) -> Bits:
    """The union of the line and its shifts by `step` < 64 pixels to both sides."""
    spread: Bits = np.left_shift(line, step)
    spread |= line
    spread |= line >> step
    spread[1:] |= line[:-1] >> (WORD - step)
    spread[:-1] |= line[1:] << (WORD - step)
    return spread
