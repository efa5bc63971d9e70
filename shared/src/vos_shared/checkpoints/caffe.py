"""Caffe's ``.caffemodel`` files, read and written without Caffe or protobuf.

A file is one NetParameter message in protobuf's wire format: a list of layers with names and blobs. Layers may be
``layer`` (field 100) or the legacy ``layers`` (field 2), and both forms of a blob's shape are read.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

from vos_shared.atomic import atomic_path
from vos_shared.errors import BadWeights

Blob = npt.NDArray[np.float32]
Blobs = Mapping[str, Sequence[Blob]]
"""Blobs by the name of their layer."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_LAYERS: Final = {100: (1, 7), 2: (4, 6)}
"""Field numbers of name and blobs, for both kinds of layers."""
_NAME, _TYPE = 1, 2
_DATA, _SHAPE, _DOUBLE_DATA = 5, 7, 8


class _Damaged(Exception):
    pass


def read_caffemodel(path: str | Path) -> dict[str, list[Blob]]:
    """Read the blobs of all layers; the arrays are read-only views of the memory-mapped file.

    Returns:
        float32 arrays by the name of their layer; layers without blobs are left out.

    Raises:
        BadWeights: the file is missing, damaged, truncated, or not a ``.caffemodel``.
    """
    path = Path(path)
    if not path.is_file():
        raise BadWeights(f"no weights file {path}")
    if not path.stat().st_size:
        raise BadWeights(f"weights {path}: the file is empty")
    with path.open("rb") as file:
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    try:
        layers = dict(_layers(content))
    except _Damaged as reason:
        raise BadWeights(
            f"weights {path} cannot be read as a caffemodel ({reason}); truncated, or another format?"
        ) from reason
    if not layers:
        raise BadWeights(f"weights {path}: no layer with blobs; is it a caffemodel?")
    return layers


def _layers(content: memoryview) -> Iterator[tuple[str, list[Blob]]]:
    for field, value in _fields(content):
        if field not in _LAYERS or isinstance(value, int):
            continue
        of_name, of_blobs = _LAYERS[field]
        name = ""
        blobs: list[Blob] = []
        for inner, part in _fields(value):
            if isinstance(part, int):
                continue
            if inner == of_name:
                name = bytes(part).decode("utf-8", "replace")
            elif inner == of_blobs:
                blobs.append(_blob(part, f"blob {len(blobs)} of layer {name or '?'}"))
        if blobs:
            yield name, blobs


def _blob(content: memoryview, what: str) -> Blob:
    shape: list[int] | None = None
    legacy = {1: 1, 2: 1, 3: 1, 4: 1}  # num, channels, height, width
    parts: list[npt.NDArray[Any]] = []
    for field, value in _fields(content):
        if isinstance(value, int):
            if field in legacy:
                legacy[field] = value
        elif field in (_DATA, _DOUBLE_DATA):
            kind = np.dtype("<f4" if field == _DATA else "<f8")
            if len(value) % kind.itemsize:
                raise _Damaged(f"{what} has a broken value")
            parts.append(np.frombuffer(value, kind))
        elif field == _SHAPE:
            shape = [size for _, part in _fields(value) for size in _sizes(part)]
    data = parts[0] if len(parts) == 1 else np.concatenate(parts or [np.empty(0, np.float32)])
    dimensions = list(legacy.values()) if shape is None else shape
    if math.prod(dimensions) != data.size:
        raise _Damaged(f"{what} has {data.size} values, but its shape is {dimensions}")
    return data.astype(np.float32, copy=False).reshape(dimensions)


def _sizes(part: int | memoryview) -> list[int]:
    """The sizes of a shape, stored as a packed or a plain field."""
    if isinstance(part, int):
        return [part]
    sizes, place = [], 0
    while place < len(part):
        size, place = _varint(part, place)
        sizes.append(size)
    return sizes


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field; the value is an int or bytes."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        field, kind = key >> 3, key & 7
        if kind == _VARINT:
            number, place = _varint(message, place)
            yield field, number
            continue
        if kind == _BYTES:
            length, place = _varint(message, place)
        elif kind in (_FIXED32, _FIXED64):
            length = 4 if kind == _FIXED32 else 8
        else:
            raise _Damaged(f"unknown wire type {kind} of field {field}")
        if length > len(message) - place:
            raise _Damaged(f"field {field} should have {length} bytes, {len(message) - place} are left")
        yield field, message[place : place + length]
        place += length


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """A varint (up to 64 bits, seven per byte) and the position after it."""
    number = 0
    for shift in range(0, 70, 7):
        if place >= len(message):
            raise _Damaged("it ends within a number")
        byte = message[place]
        place += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, place
    raise _Damaged("a number of more than 64 bits")


def write_caffemodel(path: str | Path, layers: Iterable[tuple[str, str, Sequence[Blob]]]) -> None:
    """Write layers one after another, atomically, without copying all blobs; creates missing folders.

    Args:
        path: path of the file.
        layers: name, Caffe's type, and blobs of each layer.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        for name, kind, blobs in layers:
            _write_layer(file, name, kind, [np.ascontiguousarray(blob, "<f4") for blob in blobs])


def _write_layer(file: BinaryIO, name: str, kind: str, blobs: Sequence[Blob]) -> None:
    head = _tagged(_NAME, name.encode()) + _tagged(_TYPE, kind.encode())
    starts = []
    for blob in blobs:
        shape = _tagged(_SHAPE, _tagged(1, b"".join(map(_as_varint, blob.shape))))
        before = shape + _as_varint(_DATA << 3 | _BYTES) + _as_varint(blob.nbytes)
        starts.append(_as_varint(7 << 3 | _BYTES) + _as_varint(len(before) + blob.nbytes) + before)
    length = len(head) + sum(len(start) + blob.nbytes for start, blob in zip(starts, blobs, strict=True))
    file.write(_as_varint(100 << 3 | _BYTES) + _as_varint(length) + head)
    for start, blob in zip(starts, blobs, strict=True):
        file.write(start)
        file.write(blob.data)


def _tagged(field: int, content: bytes) -> bytes:
    return _as_varint(field << 3 | _BYTES) + _as_varint(len(content)) + content


def _as_varint(number: int) -> bytes:
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])
