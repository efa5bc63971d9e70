"""Checks of weights that apply to all file formats and networks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vos_shared.errors import BadWeights

_WEIGHTS: Final = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
_COUNTERS: Final = {torch.int32, torch.int64}
"""Types of single numbers, such as the number of batches that a batch norm has seen."""


def require_weights(state: Mapping[str, Any], source: str | Path) -> dict[str, Tensor]:
    """Check that all values are tensors of finite floating-point numbers (16 to 64 bits) or single integers.

    Args:
        state: values by name.
        source: the file, for messages.

    Returns:
        The tensors, with floating point converted to float32.

    Raises:
        BadWeights: names the first value that cannot be a weight.
    """
    weights = {}
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise BadWeights(f"weights {source}: {name} is {type(value).__name__}, not a tensor")
        if value.dtype not in _WEIGHTS and not (value.dtype in _COUNTERS and value.numel() == 1):
            kind = str(value.dtype).removeprefix("torch.")
            raise BadWeights(f"weights {source}: {name} is {kind} {list(value.shape)}; weights are float32 or float16")
        if value.is_floating_point() and not value.isfinite().all():
            raise BadWeights(f"weights {source} contain NaN or infinity (in {name}); their training has diverged")
        weights[str(name)] = value.float() if value.is_floating_point() else value
    return weights


def require_finite(arrays: Mapping[str, npt.NDArray[Any]], source: str | Path) -> None:
    """Check NumPy arrays for NaN and infinity.

    Raises:
        BadWeights: names the first array that contains one.
    """
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise BadWeights(f"weights {source} contain NaN or infinity (in {name}); their training has diverged")


def require_same_shapes(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: str | Path) -> None:
    """Check that weights fit a network.

    Args:
        state: the weights.
        expected: the state of the network.
        source: the file, for messages.

    Raises:
        BadWeights: tensors are missing, unknown, or have another shape.
    """
    wrong = [name for name, value in expected.items() if name not in state or state[name].shape != value.shape]
    surplus = [name for name in state if name not in expected]
    if wrong or surplus:
        first = f"{wrong[0]} is missing or of another shape" if wrong else f"{surplus[0]} does not belong to it"
        raise BadWeights(
            f"weights {source} are of another network ({len(wrong)} of {len(expected)} tensors do not fit, "
            f"{len(surplus)} are unknown; {first})"
        )


def in_half_precision(state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Convert floating-point tensors to float16.

    Raises:
        BadWeights: a value is too large for float16.
    """
    halves = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    if not all(bool(value.isfinite().all()) for value in halves.values()):
        raise BadWeights(f"{source}: values are too large for half precision; leave out --half")
    return halves
