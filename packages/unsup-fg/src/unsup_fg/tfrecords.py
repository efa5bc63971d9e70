"""TFRecord files of `tf.train.Example`, read and written without TensorFlow; checksums are checked."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

from unsup_fg.crc32c import masked_crc32c
from vos_shared.atomic import atomic_path
from vos_shared.errors import BadDataset
from vos_shared.files import open_file

Feature = list[bytes] | list[float] | list[int]
Example = Mapping[str, Feature]
"""Features by name."""

_HEADER: Final = 12
"""Bytes of the header of a record: length, and checksum of the length."""
_FOOTER: Final = 4
"""Bytes of the footer of a record: checksum of the data."""
LONGEST: Final = 1 << 28
"""Largest accepted record, in bytes; records of the method have 262,287."""
_BYTES, _FLOATS, _INTS = 1, 2, 3
"""Field numbers of the three kinds of lists in `tf.train.Feature`."""
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
"""Wire types of protocol buffers."""


class RecordWriter:
    """Writes several TFRecord files at once; either all appear complete or none does. Use it as a context manager.

    Args:
        paths: of the files; creates missing folders.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._files = []
            for path in self._paths:
                path.parent.mkdir(parents=True, exist_ok=True)
                temporary = stack.enter_context(atomic_path(path))
                self._files.append(stack.enter_context(temporary.open("wb")))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:  # fmt: skip
        return self._stack.__exit__(kind, error, trace)

    def write(self, index: int, example: Example) -> None:
        """Add a record to a file."""
        data = encode(example)
        length = struct.pack("<Q", len(data))
        self._files[index].write(length + struct.pack("<I", masked_crc32c(length)))
        self._files[index].write(data + struct.pack("<I", masked_crc32c(data)))


class RecordFile:
    """A TFRecord file with random access to its records.

    Args:
        path: path of the file. Lengths are read and checked at once, data on demand.

    Raises:
        BadDataset: the file does not exist, is cut short, or has a length with a wrong checksum.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with open_file(path) as file:
                size = file.seek(0, 2)
                self._places = list(self._scan(file, size))
        except FileNotFoundError:
            raise BadDataset(f"{path} does not exist") from None

    def _scan(self, file: BinaryIO, size: int) -> Iterator[tuple[int, int]]:
        start = 0
        while start < size:
            file.seek(start)
            header = file.read(_HEADER)
            if len(header) < _HEADER:
                raise BadDataset(f"{self.path} is cut short at byte {size}; write it again")
            length, checksum = struct.unpack("<QI", header)
            if masked_crc32c(header[:8]) != checksum:
                raise BadDataset(f"{self.path} is not a TFRecord file, or damaged at byte {start}; write it again")
            if length > LONGEST:
                raise BadDataset(f"{self.path} claims a record of {length} bytes at byte {start}; write it again")
            if start + _HEADER + length + _FOOTER > size:
                raise BadDataset(f"{self.path} is cut short at byte {size}; write it again")
            yield start + _HEADER, length
            start += _HEADER + length + _FOOTER

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> dict[str, Feature]:
        """Read the features of a record.

        Raises:
            BadDataset: the record is damaged.
        """
        start, length = self._places[index]
        with open_file(self.path) as file:
            file.seek(start)
            data, checksum = file.read(length), file.read(_FOOTER)
        if len(data) + len(checksum) < length + _FOOTER or masked_crc32c(data) != struct.unpack("<I", checksum)[0]:
            raise BadDataset(f"record {index} of {self.path} is damaged (wrong checksum); write the file again")
        try:
            return decode(data)
        except (ValueError, IndexError, struct.error, UnicodeDecodeError) as reason:
            raise BadDataset(f"record {index} of {self.path} is not a tf.train.Example ({reason})") from reason


def encode(example: Example) -> bytes:
    """Encode an example as a protocol buffer."""
    entries = []
    for name, values in sorted(example.items()):
        feature = _field(_kind(values), _list(values))
        entries.append(_field(1, _field(1, name.encode()) + _field(2, feature)))
    return _field(1, b"".join(entries))


def _kind(values: Feature) -> int:
    return {bytes: _BYTES, float: _FLOATS, int: _INTS}[type(values[0])]


def _list(values: Feature) -> bytes:
    """Encode a BytesList, a packed FloatList or a packed Int64List."""
    content = b""
    for value in values:
        if isinstance(value, bytes):
            content += _field(1, value)
        else:
            content += struct.pack("<f", value) if isinstance(value, float) else _varint(value & (1 << 64) - 1)
    return content if isinstance(values[0], bytes) else _field(1, content)


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | _LENGTH) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode(data: bytes) -> dict[str, Feature]:
    """Decode the features of an example.

    Raises:
        ValueError: the data are not an example.
    """
    features: dict[str, Feature] = {}
    for content in _messages(memoryview(data), 1):
        for entry in _messages(content, 1):
            name = b"".join(bytes(part) for part in _messages(entry, 1)).decode()
            for feature in _messages(entry, 2):
                features[name] = _values(feature)
    return features


def _values(feature: memoryview) -> Feature:
    for number, _, value in _fields(feature):
        if isinstance(value, int):
            continue
        if number == _BYTES:
            return [bytes(item) for item in _messages(value, 1)]
        if number in {_FLOATS, _INTS}:
            return _numbers(value, floats=number == _FLOATS)
    return []


def _numbers(content: memoryview, *, floats: bool) -> list[float] | list[int]:
    """Decode the numbers of a list, packed or one by one."""
    found: list[float] = []
    whole: list[int] = []
    for _, wire, value in _fields(content):
        if isinstance(value, int):
            whole.append(_signed(value))
        elif floats:
            found.extend(struct.unpack(f"<{len(value) // 4}f", value))
        elif wire == _LENGTH:
            place = 0
            while place < len(value):
                number, place = _read_varint(value, place)
                whole.append(_signed(number))
    return found if floats else whole


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _messages(data: memoryview, number: int) -> Iterator[memoryview]:
    for found, _, value in _fields(data):
        if found == number and not isinstance(value, int):
            yield value


def _fields(data: memoryview) -> Iterator[tuple[int, int, memoryview | int]]:
    """Decode number, wire type and content of each field of a message."""
    place = 0
    while place < len(data):
        tag, place = _read_varint(data, place)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, place = _read_varint(data, place)
            yield number, wire, value
            continue
        if wire == _LENGTH:
            length, place = _read_varint(data, place)
        elif wire in {_FIXED64, _FIXED32}:
            length = 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if place + length > len(data):
            raise ValueError("a field is longer than its message")
        yield number, wire, data[place : place + length]
        place += length


def _read_varint(data: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
