"""Caffe's files: the reader and writer of protobuf's wire format."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from vos_shared.checkpoints.caffe import read_caffemodel, write_caffemodel
from vos_shared.errors import BadWeights


def varint(number: int) -> bytes:
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


def field(number: int, content: bytes | int) -> bytes:
    """A field of protobuf's wire format, written from its definition."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def read(path: Path, content: bytes) -> dict[str, list[np.ndarray]]:
    path.write_bytes(content)
    return read_caffemodel(path)


def test_layers_and_shapes(tmp_path: Path) -> None:
    blob = field(7, field(1, varint(2) + varint(1))) + field(5, floats(1.5, -2))
    layer = field(1, b"conv1") + field(2, b"Convolution") + field(7, blob)
    layers = read(tmp_path / "x", field(1, b"a net") + field(100, layer) + field(100, field(1, b"relu")))
    assert list(layers) == ["conv1"], "layers without blobs are left out"
    np.testing.assert_array_equal(layers["conv1"][0], np.array([[1.5], [-2]], np.float32))


def test_legacy_layers_dimensions_and_unpacked_values(tmp_path: Path) -> None:
    dimensions = field(1, 1) + field(2, 1) + field(3, 1) + field(4, 3)
    unpacked = b"".join(varint(5 << 3 | 5) + floats(value) for value in (1, 2, 3))
    layer = field(4, b"ip") + field(5, 14) + field(6, dimensions + unpacked)
    layers = read(tmp_path / "x", field(2, layer))
    np.testing.assert_array_equal(layers["ip"][0], np.array([[[[1, 2, 3]]]], np.float32))


def test_doubles_and_unpacked_shapes(tmp_path: Path) -> None:
    blob = field(7, field(1, 1) + field(1, 2)) + field(8, struct.pack("<2d", 0.5, 4))
    layers = read(tmp_path / "x", field(100, field(1, b"a") + field(7, blob)))
    np.testing.assert_array_equal(layers["a"][0], np.array([[0.5, 4]], np.float32))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(3, 2, 5, 200)).astype(np.float32), rng.normal(size=3).astype(np.float32)
    write_caffemodel(tmp_path / "new" / "x", [("a", "Convolution", [weight, bias]), ("b", "Scale", [weight.T])])
    layers = read_caffemodel(tmp_path / "new" / "x")
    np.testing.assert_array_equal(layers["a"][0], weight)
    np.testing.assert_array_equal(layers["a"][1], bias)
    np.testing.assert_array_equal(layers["b"][0], weight.T)


def test_blobs_are_views_of_the_file(tmp_path: Path) -> None:
    write_caffemodel(tmp_path / "x", [("a", "", [np.zeros(1000, np.float32)])])
    assert not read_caffemodel(tmp_path / "x")["a"][0].flags.owndata


def test_every_truncation_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_caffemodel(path, [("a", "Convolution", [np.ones((2, 3), np.float32)])])
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(BadWeights, match=r"weights .*x"):
            read_caffemodel(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (varint(100 << 3 | 2) + varint(2**63), "should have 9223372036854775808 bytes"),
        (b"\xff" * 20, "more than 64 bits"),
        (
            field(100, field(1, b"a") + field(7, field(7, field(1, varint(2**40))) + field(5, floats(1)))),
            "its shape is",
        ),
        (field(100, field(1, b"a") + field(7, field(5, b"123"))), "broken value"),
        (b"\x1f", "unknown wire type"),
        (field(100, field(1, b"relu")), "no layer with blobs"),
        (b"PK\x03\x04 not a caffemodel", "cannot be read as a caffemodel|no layer"),
    ],
)
def test_damaged_files_are_one_clear_line(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(BadWeights, match=words):
        read(tmp_path / "x", content)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadWeights, match="no weights file"):
        read_caffemodel(tmp_path / "x")
