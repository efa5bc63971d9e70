"""TensorFlow checkpoints, with TensorFlow itself; skipped where the extra is not installed."""

from __future__ import annotations

import resource
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from vos_shared.checkpoints.tensorflow import read_checkpoint, write_checkpoint
from vos_shared.errors import BadWeights

# Not importorskip, which would load TensorFlow before triton while tests are collected.
pytestmark = pytest.mark.skipif(find_spec("tensorflow") is None, reason="TensorFlow is not installed")


def test_variables_come_back_as_they_were_written(tmp_path: Path) -> None:
    arrays = {"net/conv/weights": np.arange(24, dtype=np.float32).reshape(2, 2, 3, 2), "global_step": np.int32(7)}
    write_checkpoint(tmp_path / "model.ckpt", {name: np.asarray(value) for name, value in arrays.items()})
    for path in (tmp_path / "model.ckpt", tmp_path / "model.ckpt.index"):
        back = read_checkpoint(path)
        assert set(back) == set(arrays)
        for name, value in arrays.items():
            np.testing.assert_array_equal(back[name], value)


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadWeights, match=r"nothing\.ckpt: no TensorFlow checkpoint"):
        read_checkpoint(tmp_path / "nothing.ckpt")


def test_a_data_file_that_is_cut_short_is_named(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "model.ckpt", {"weights": np.zeros(1000, np.float32)})
    data = tmp_path / "model.ckpt.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(BadWeights, match=r"model\.ckpt: TensorFlow cannot read .* cut short"):
        read_checkpoint(tmp_path / "model.ckpt")


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "model.ckpt", {"weights": np.array([1, np.nan], np.float32)})
    with pytest.raises(BadWeights, match=r"NaN or infinity \(in weights\)"):
        read_checkpoint(tmp_path / "model.ckpt")


def test_a_checkpoint_that_does_not_fit_keeps_the_earlier_one(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "model.ckpt", {"weights": np.zeros(10, np.float32)})
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # Further writes fail, as on a full disk.
    try:
        with pytest.raises(OSError, match="File too large") as failed:
            write_checkpoint(tmp_path / "model.ckpt", {"weights": np.zeros(100_000, np.float32)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert failed.value.filename == str(tmp_path / "model.ckpt")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
