"""TFRecord files: the official ones, ours as TensorFlow reads them, and damaged ones."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unsup_fg.crc32c import crc32c, masked_crc32c
from unsup_fg.records import EvalSegRecord, Records, StudentRecord, shard_paths
from unsup_fg.tfrecords import Example, RecordFile, RecordWriter, decode, encode
from vos_shared.errors import BadDataset
from vos_shared.testing import parity_folder


def write_examples(path: Path, examples: Iterable[Example]) -> None:
    with RecordWriter([path]) as writer:
        for example in examples:
            writer.write(0, example)


def record(seed: int) -> StudentRecord:
    random = np.random.default_rng(seed)
    frame, soft_mask = random.integers(0, 256, (256, 256, 3), np.uint8), random.integers(0, 256, (256, 256), np.uint8)
    return StudentRecord.of(f"clip/{seed:05d}.png", frame, soft_mask)


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = tmp_path / "train-00000-of-00001"
    write_examples(path, (record(seed).example() for seed in range(3)))
    return path


def test_checksums_are_those_of_the_standard() -> None:
    """The references are RFC 3720, B.4, and the check value of CRC catalogues."""
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
    assert crc32c(b"") == 0


@given(st.binary(max_size=2500))
def test_checksums_of_any_length(data: bytes) -> None:
    """Compute a checksum bit by bit."""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    assert crc32c(data) == register ^ 0xFFFFFFFF


@given(
    st.dictionaries(
        st.text(max_size=20),
        st.lists(st.binary(max_size=300), min_size=1, max_size=3)
        | st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=3)
        | st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=3),
        max_size=4,
    )
)
def test_examples_decode_to_what_was_encoded(example: dict[str, list[bytes] | list[int] | list[float]]) -> None:
    assert decode(encode(example)) == example


class TestOfficial:
    def test_student_records(self) -> None:
        folder = parity_folder("unsup-fg")
        records = Records(folder / "example_student.tfrecords")
        assert len(records) == 3
        with np.load(folder / "fixture_preprocessing.npz") as arrays:
            for index in range(3):
                found = records.student(index)
                np.testing.assert_array_equal(found.frame, arrays[f"src/{index}/u8"])
                np.testing.assert_array_equal(found.soft_mask, arrays[f"src/{index}/seg"].squeeze())

    def test_evalseg_records(self) -> None:
        records = Records(parity_folder("unsup-fg") / "example_evalseg.tfrecords")
        assert [records.evalseg(index).frame.ndim for index in range(3)] == [3, 3, 3]
        with np.load(parity_folder("unsup-fg") / "fixture_preprocessing.npz") as arrays:
            labels = [float(arrays[f"evalseg/{index}/label"].squeeze()) for index in range(3)]
        assert [records.evalseg(index).label for index in range(3)] == pytest.approx(labels)


def test_what_is_written_is_read(shard: Path) -> None:
    records = Records(shard.parent)
    assert len(records) == 3
    for seed in range(3):
        found, expected = records.student(seed), record(seed)
        assert found.name == expected.name
        np.testing.assert_array_equal(found.frame, expected.frame)
        np.testing.assert_array_equal(found.soft_mask, expected.soft_mask)


def test_evalseg_records_are_read(tmp_path: Path) -> None:
    frame = np.full((40, 60, 3), (200, 30, 90), np.uint8)
    soft_mask = np.random.default_rng(0).integers(0, 256, (40, 60), np.uint8)
    write_examples(tmp_path / "train-00000-of-00001", [EvalSegRecord("a/0.jpg", frame, soft_mask, 61.25).example()])
    found = Records(tmp_path).evalseg(0)
    assert found.label == 61.25
    np.testing.assert_array_equal(found.soft_mask, soft_mask)
    assert np.abs(found.frame.astype(int) - frame).max() < 6
    with pytest.raises(BadDataset, match="record of EvalSeg-Net"):
        Records(tmp_path).student(0)


def test_tensorflow_reads_them(shard: Path) -> None:
    if find_spec("tensorflow") is None:
        pytest.skip("TensorFlow is not installed")
    from vos_shared.checkpoints.tensorflow import _tensorflow

    tensorflow = _tensorflow()
    read = list(tensorflow.compat.v1.io.tf_record_iterator(str(shard)))
    assert len(read) == 3
    example = tensorflow.train.Example.FromString(read[1]).features.feature
    expected = record(1)
    assert example["image/filename"].bytes_list.value[0] == expected.name.encode()
    assert list(example["image/height"].int64_list.value) == [256]
    assert example["image/frame0"].bytes_list.value[0] == expected.frame.tobytes()


class TestDamaged:
    def test_a_flipped_bit_of_the_data(self, shard: Path) -> None:
        content = bytearray(shard.read_bytes())
        content[1000] ^= 4
        shard.write_bytes(content)
        with pytest.raises(BadDataset, match=r"record 0 of .* \(wrong checksum\)"):
            Records(shard.parent).student(0)
        Records(shard.parent).student(1)

    @pytest.mark.parametrize("length", [5, 13, 1000, -3])
    def test_cut_short(self, shard: Path, length: int) -> None:
        shard.write_bytes(shard.read_bytes()[:length])
        with pytest.raises(BadDataset, match="cut short"):
            Records(shard.parent)

    def test_absurd_lengths(self, tmp_path: Path) -> None:
        path = tmp_path / "train-00000-of-00001"
        for length in (1 << 40, (1 << 64) - 1):
            header = struct.pack("<Q", length)
            path.write_bytes(header + struct.pack("<I", masked_crc32c(header)) + bytes(100))
            with pytest.raises(BadDataset, match=f"claims a record of {length} bytes"):
                RecordFile(path)
        path.write_bytes(b"not a record at all, but text")
        with pytest.raises(BadDataset, match="not a TFRecord file"):
            RecordFile(path)

    def test_a_record_that_is_no_example(self, tmp_path: Path) -> None:
        path = tmp_path / "train-00000-of-00001"
        length, data = struct.pack("<Q", 6), b"\xffhello"
        checksums = [struct.pack("<I", masked_crc32c(part)) for part in (length, data)]
        path.write_bytes(length + checksums[0] + data + checksums[1])
        with pytest.raises(BadDataset, match="record 0"):
            Records(tmp_path).student(0)

    def test_missing_shards(self, tmp_path: Path) -> None:
        with pytest.raises(BadDataset, match="no TFRecord shards"):
            Records(tmp_path)
        write_examples(shard_paths(tmp_path, 4)[2], [record(0).example()])
        with pytest.raises(BadDataset, match="1 of 4 shards"):
            Records(tmp_path)
