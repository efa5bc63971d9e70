"""CRC-32C, the checksum of TFRecord files, with NumPy."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

_POLYNOMIAL: Final = 0x82F63B78
"""Castagnoli's, bits reversed."""
_BLOCK: Final = 1024
"""Bytes that one row of NumPy's work covers."""
_ALL: Final = 0xFFFFFFFF


def crc32c(data: bytes | memoryview) -> int:
    """Checksum of any number of bytes."""
    content = np.frombuffer(data, np.uint8)
    if len(content) < 4:
        return _serial(content) ^ _ALL
    # The register starts with ones, which is the same as inverting the first four bytes. Zeros in front change nothing.
    rows = -(-len(content) // _BLOCK)
    padded = np.zeros(rows * _BLOCK, np.uint8)
    padded[-len(content) :] = content
    padded[len(padded) - len(content) :][:4] ^= 0xFF
    flat = padded.reshape(rows, _BLOCK) + _offsets()  # [rows, block], places in the table
    parts = np.bitwise_xor.reduce(_table().reshape(-1)[flat], axis=1).tolist()
    register = 0
    for part in parts:
        register = _after_block(register) ^ part
    return register ^ _ALL


def masked_crc32c(data: bytes | memoryview) -> int:
    """As TFRecord files store it: rotated and with a constant added."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & _ALL


@cache
def _table() -> npt.NDArray[Any]:
    """What a byte does to the register, by its place in a block and its value, uint32 [block, 256]."""
    values = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        values = np.where(values & 1, values >> 1 ^ _POLYNOMIAL, values >> 1)
    rows = [values]
    for _ in range(_BLOCK - 1):
        rows.append(rows[-1] >> 8 ^ values[rows[-1] & 0xFF])
    return np.stack(rows[::-1])


@cache
def _offsets() -> npt.NDArray[Any]:
    return np.arange(_BLOCK) * 256


@cache
def _first_rows() -> list[list[int]]:
    rows: list[list[int]] = _table()[:4].tolist()
    return rows


def _after_block(register: int) -> int:
    """The register after a block of zeros."""
    first, second, third, fourth = _first_rows()
    return first[register & 0xFF] ^ second[register >> 8 & 0xFF] ^ third[register >> 16 & 0xFF] ^ fourth[register >> 24]


def _serial(content: npt.NDArray[Any]) -> int:
    last = _table()[-1].tolist()
    register = _ALL
    for byte in content.tolist():
        register = register >> 8 ^ last[(register ^ byte) & 0xFF]
    return register
