"""Weights in npz files: floating-point arrays, or an error of one line."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from vos_shared.checkpoints.npz import fitting, read_npz
from vos_shared.errors import BadWeights


def test_arrays_come_back(tmp_path: Path) -> None:
    arrays = {"a|b": np.arange(6, dtype=np.float32).reshape(2, 3), "c": np.ones(2, np.float16)}
    np.savez(tmp_path / "x.npz", **arrays)  # type: ignore[arg-type]
    found = read_npz(tmp_path / "x.npz")
    assert found.keys() == arrays.keys()
    np.testing.assert_array_equal(found["a|b"], arrays["a|b"])


@pytest.mark.parametrize("dtype", ["U1", "?", "i4", "c8", "M8[s]", "O"])
def test_arrays_of_other_types(tmp_path: Path, dtype: str) -> None:
    array: npt.NDArray[np.generic] = np.zeros((2, 3), dtype)
    np.savez(tmp_path / "x.npz", kernel=array)
    with pytest.raises(BadWeights, match=r"x\.npz"):
        read_npz(tmp_path / "x.npz")


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"PK\x03\x04", b"\x80\x04K\x01.", b"text"])
def test_other_formats(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(BadWeights, match=r"x\.npz cannot be read as an npz file") as caught:
        read_npz(tmp_path / "x.npz")
    assert "\n" not in str(caught.value)


def test_arrays_of_another_shape() -> None:
    with (
        pytest.raises(BadWeights, match=r"x\.npz does not fit the network: size mismatch for weight: .*\[2, 2\]"),
        fitting("x.npz"),
    ):
        torch.nn.Linear(3, 2, bias=False).load_state_dict({"weight": torch.zeros(2, 2)})


def test_damage(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    np.savez_compressed(tmp_path / "good.npz", a=random.random((20, 20)), b=np.zeros(3))
    good = (tmp_path / "good.npz").read_bytes()
    for bit in random.choice(8 * len(good), 400, replace=False).tolist():
        damaged = bytearray(good)
        damaged[bit // 8] ^= 1 << bit % 8
        (tmp_path / "x.npz").write_bytes(damaged)
        with contextlib.suppress(BadWeights):
            read_npz(tmp_path / "x.npz")


def test_values_that_are_not_finite(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", weight=np.array([0, np.inf], np.float16))
    with pytest.raises(BadWeights, match=r"x\.npz contain NaN or infinity \(in weight\)"):
        read_npz(tmp_path / "x.npz")
