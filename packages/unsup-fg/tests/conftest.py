"""Official numbers from the folder that VOS_PARITY names, and clips whose foreground is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from vos_shared.testing import parity_folder

Array = npt.NDArray[Any]


@pytest.fixture(scope="session")
def fixture_videopca() -> dict[str, Array]:
    with np.load(parity_folder("unsup-fg") / "fixture_videopca.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def moving_disc() -> tuple[Array, Array]:
    """A textured disc that crosses a textured background that stands still.

    Returns:
        Frames uint8 [20, 72, 96, 3], disc bool [20, 72, 96].
    """
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:72, :96]
    patches = random.integers(0, 8, (9, 12, 3)).repeat(8, axis=0).repeat(8, axis=1)
    background = np.array([40, 110, 70]) + patches + random.integers(0, 10, (72, 96, 3))
    texture = np.array([200, 70, 40]) + random.integers(0, 20, (72, 96, 3))
    discs = np.stack([(rows - 36) ** 2 + (columns - 16 - 3.4 * t) ** 2 <= 9**2 for t in range(20)])
    return np.where(discs[..., None], texture, background).astype(np.uint8), discs
