"""Pytest plugin for the tests of all packages; the workspace loads it with ``-p vos_shared.testing``.

Fixtures: `device` and `run_command`; every test runs on one thread. Functions: `parity_folder`, and weights of the
parity folders, which follow from their names. Needs the extra ``test``.
"""

from __future__ import annotations

import os
import signal
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import settings
from torch import Tensor

pytest.register_assert_rewrite("vos_shared.contract_tests")

# The speed of the test machine must not matter.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# A background job ignores Ctrl-C, and so do its children; some tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)

Main = Callable[[], object]
"""The function of a console script; it reads `sys.argv`."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Attributes:
        code: exit code.
        stdout: its standard output.
        stderr: its standard error.
    """

    code: int
    stdout: str
    stderr: str


RunCommand = Callable[..., Outcome]
"""Takes the function, the name and the arguments of a console script."""


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Use one thread: test models are so small that threads mostly wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", params=["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])
def device(request: pytest.FixtureRequest) -> torch.device:
    """The CPU and, if there is one, the GPU; a test with this fixture runs on each."""
    return torch.device(request.param)


@pytest.fixture
def run_command(capsys: pytest.CaptureFixture[str]) -> RunCommand:
    """Run a console script in this process."""

    def run(main: Main, program: str, *arguments: object) -> Outcome:
        capsys.readouterr()
        code = exit_code(main, program, *arguments)
        return Outcome(code, *capsys.readouterr())

    return run


def exit_code(main: Main, program: str, *arguments: object) -> int:
    """Run a console script in this process and return its exit code; other exceptions than SystemExit pass."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [program, *map(str, arguments)])
        try:
            main()
        except SystemExit as stop:
            return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0


def parity_folder(package: str) -> Path:
    """The folder with the official numbers of a package in the folder VOS_PARITY; skips the test without it."""
    root = os.environ.get("VOS_PARITY")
    if not root or not Path(root, package).is_dir():
        pytest.skip(f"VOS_PARITY does not name a folder that holds the official numbers of {package}")
    return Path(root, package)


def recipe_noise(name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Standard normal noise that depends only on a weight's name; all parity folders use it."""
    seed = zlib.crc32(name.encode())
    return np.asarray(np.random.RandomState(seed).standard_normal(shape))  # The generator of the recipes.


def bilinear_kernel(size: int, channels: int) -> npt.NDArray[np.float64]:
    """Kernel [size, size, C, C] of a transposed convolution that upsamples each channel bilinearly; `size` is even."""
    taps = 1 - np.abs(np.arange(size) - (size / 2 - 0.5)) / (size / 2)
    kernel: npt.NDArray[Any] = np.outer(taps, taps)[:, :, None, None] * np.eye(channels)
    return kernel


def recipe_tensor(key: str, shape: tuple[int, ...]) -> Tensor:
    """An entry of a PyTorch state by the recipe that dense-ulearn and amd-objectness share.

    Args:
        key: key in the state, such as ``layer1.0.bn1.weight``.
        shape: shape of the entry.

    Returns:
        A float32 tensor, or int64 zero for ``num_batches_tracked``.
    """
    leaf = key.rpartition(".")[2]
    if leaf == "num_batches_tracked":
        return torch.tensor(0)
    noise = recipe_noise(key, shape)
    if leaf == "weight":
        value = noise * np.sqrt(2 / np.prod(shape[1:])) if len(shape) == 4 else 1 + 0.1 * noise
    else:
        value = {"bias": 0.01 * noise, "running_mean": 0.1 * noise, "running_var": np.abs(noise) * 0.1 + 0.9}[leaf]
    return torch.from_numpy(np.asarray(value, dtype=np.float32))
