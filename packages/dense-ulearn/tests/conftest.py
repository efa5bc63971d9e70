"""Fixtures of several tests: the folder with the official program's numbers and the weights they were computed with."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dense_ulearn.networks import DenseNetwork


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """On maps this small, and on cores that others use as well, threads mostly wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", params=["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Tests that take it run on a GPU as well where there is one."""
    return torch.device(request.param)


@pytest.fixture(scope="session")
def parity() -> Path:
    folder = Path(os.environ.get("VOS_PARITY", "")) / "dense-ulearn"
    if not os.environ.get("VOS_PARITY") or not folder.is_dir():
        pytest.skip("VOS_PARITY does not name the folder with the official program's numbers")
    return folder


def recipe_value(key: str, shape: tuple[int, ...]) -> Tensor:
    """The weights of the parity recipe: pseudo-random numbers that follow from each entry's name."""
    noise = np.random.RandomState(zlib.crc32(key.encode()) & 0xFFFFFFFF).standard_normal(shape)
    leaf = key.rsplit(".", 1)[1]
    if leaf == "num_batches_tracked":
        return torch.tensor(0)
    if leaf == "weight":
        value = noise * np.sqrt(2 / np.prod(shape[1:])) if len(shape) == 4 else 1 + 0.1 * noise
    else:
        value = {"bias": 0.01 * noise, "running_mean": 0.1 * noise, "running_var": np.abs(noise) * 0.1 + 0.9}[leaf]
    return torch.from_numpy(np.asarray(value, dtype=np.float32))


@pytest.fixture(scope="session")
def recipe_state() -> dict[str, Tensor]:
    """State of a `DenseNetwork` with the weights of the parity recipe."""
    return {key: recipe_value(key, tuple(value.shape)) for key, value in DenseNetwork().state_dict().items()}


@pytest.fixture
def recipe_network(recipe_state: dict[str, Tensor]) -> DenseNetwork:
    network = DenseNetwork()
    network.load_state_dict(recipe_state)
    return network.eval()
