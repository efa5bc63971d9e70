"""Fixtures of several tests: the official program's numbers, the networks behind them, and small weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from amd_objectness.checkpoints import save_weights, untrained
from amd_objectness.networks import AMD
from amd_objectness.settings import Architecture
from vos_shared.testing import parity_folder, recipe_tensor

Arrays = Mapping[str, npt.NDArray[np.float64]]


@pytest.fixture(scope="session")
def parity() -> Path:
    return parity_folder("amd-objectness")


@pytest.fixture(scope="session")
def recipe_state(parity: Path) -> dict[str, Tensor]:
    """State of the official network with weights of recipe A."""
    with torch.device("meta"):
        expected = AMD().state_dict()
    return {key: recipe_tensor(key, tuple(value.shape)) for key, value in expected.items()}


@pytest.fixture
def recipe_model(recipe_state: dict[str, Tensor]) -> AMD:
    model = AMD()
    model.load_state_dict(recipe_state)
    return model.eval()


@pytest.fixture(scope="session")
def small_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights file of a random ResNet-18 that names a shorter side of 40 pixels and channel 2."""
    weights = untrained(Architecture("resnet18", motion_size=(64, 64)))
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_weights(path, replace(weights, metadata={"shorter_side": "40", "channel": "2"}))
    return path
