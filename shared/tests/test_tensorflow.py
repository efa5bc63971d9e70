"""TensorFlow checkpoints, with TensorFlow itself; skipped where the extra is not installed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from vos_shared.checkpoints.tensorflow import read_checkpoint, write_checkpoint
from vos_shared.errors import BadWeights

# Not by importorskip: TensorFlow must not be loaded before triton, and while tests are collected it would be.
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
