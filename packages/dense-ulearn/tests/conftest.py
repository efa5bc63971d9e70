"""Shared fixtures: the folder with the official program's numbers, and the weights that produced them."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import Tensor

from dense_ulearn.networks import DenseNetwork
from vos_shared.testing import parity_folder, recipe_tensor


@pytest.fixture(scope="session")
def parity() -> Path:
    return parity_folder("dense-ulearn")


@pytest.fixture(scope="session")
def recipe_state() -> dict[str, Tensor]:
    """State of a `DenseNetwork` with the weights of the parity recipe."""
    return {key: recipe_tensor(key, tuple(value.shape)) for key, value in DenseNetwork().state_dict().items()}


@pytest.fixture
def recipe_network(recipe_state: dict[str, Tensor]) -> DenseNetwork:
    network = DenseNetwork()
    network.load_state_dict(recipe_state)
    return network.eval()
