"""Soft masks in files: written values are read back, and other content is an error of one line."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from vos_shared.errors import BadResults
from vos_shared.soft_masks import objects_with_soft_masks, read_soft_mask, write_soft_masks


def npy(array: npt.NDArray[np.generic]) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def archive() -> bytes:
    content = io.BytesIO()
    np.savez(content, a=np.zeros((3, 3), np.float32))
    return content.getvalue()


def claiming(shape: str) -> bytes:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


GOOD = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f2", "<f8"])
def test_what_is_written_comes_back(tmp_path: Path, dtype: str) -> None:
    write_soft_masks(tmp_path, "00000", np.stack([GOOD, np.zeros_like(GOOD)]))
    assert objects_with_soft_masks(tmp_path) == [1]
    np.testing.assert_array_equal(read_soft_mask(tmp_path, 1, "00000"), GOOD)
    (tmp_path / "1/00001.npy").write_bytes(npy(GOOD.astype(dtype)))
    found = read_soft_mask(tmp_path, 1, "00001")
    assert found is not None
    assert found.dtype == np.float32
    assert np.abs(found - GOOD).max() < 1e-3


@pytest.mark.parametrize(
    "content",
    [
        archive(),
        npy(np.zeros((3, 4), np.int64)),
        npy(GOOD[None]),
        npy(GOOD * 255),
        npy(np.full((3, 4), np.nan, np.float32)),
        npy(GOOD[:0]),
        npy(GOOD)[:-4],
        npy(GOOD) + b"more",
        claiming("(100000, 10000000)"),
        claiming("(-1, 4)"),
        claiming("(" * 5000),
        b"\x93NUMPY\x09\x00",
        b"PK\x03\x04",
        b"\x80\x04K\x01.",
        b"",
    ],
    ids=range(15),
)
def test_anything_else_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1/00000.npy").write_bytes(content)
    with pytest.raises(BadResults, match=r"soft mask .*00000\.npy") as caught:
        read_soft_mask(tmp_path, 1, "00000")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["²", "٣", "-1", "x"])
def test_folders_that_are_no_objects(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(BadResults, match="holds no soft masks"):
        objects_with_soft_masks(tmp_path)
