"""Loss, gradients, batch-norm updates and one Adam step, equal to the official code; properties of the loss."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from osmn.losses import weight_regulariser
from osmn.networks import OSMN
from osmn.networks.modulators import SpatialModulator, VisualModulator
from osmn.official import names_of, to_official
from vos_shared.layers.losses import balanced_cross_entropy
from vos_shared.training.optimisers import TensorFlowAdam

pytestmark = pytest.mark.usefixtures("all_cores")


def nchw(value: np.ndarray[Any, Any]) -> Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(value.transpose(0, 3, 1, 2)))
    return tensor.double() if tensor.is_floating_point() else tensor


@pytest.mark.parametrize("mode", ["bn", "fixbn"])
def test_one_training_step_equals_the_official_one(
    mode: str, parity: Path, official_model: Callable[[str], OSMN]
) -> None:
    # In double precision: in single, which kernels the library picks decides a few ReLUs near zero, and with
    # random weights of this size that moves gradients by parts in a thousand.
    arrays = np.load(parity / "fixture_train.npz")
    numbers = json.loads((parity / "fixture_train.json").read_text())[mode]
    model = official_model("osvos").double().train()
    assert isinstance(model.modulator, VisualModulator)
    assert isinstance(model.modulator_sp, SpatialModulator)
    model.modulator.dropout.p = 0.0
    model.modulator_sp.train(mode == "bn")
    optimiser = TensorFlowAdam(model.parameters(), lr=1e-5)

    gamma = model.visual_modulation(nchw(arrays["guide"]))
    logits = model(nchw(arrays["image"]), nchw(arrays["spatial"]), gamma)
    loss, regulariser = balanced_cross_entropy(logits, nchw(arrays["label"])), weight_regulariser(model)
    (loss + regulariser).backward()
    assert loss.item() == pytest.approx(numbers["loss0"]["main"], rel=1e-6)
    assert regulariser.item() == pytest.approx(numbers["loss0"]["reg"], rel=1e-6)
    _check_moving_statistics(
        model, {k.split("/", 2)[2]: arrays[k] for k in arrays if k.startswith(f"{mode}/after_fwd1/")}
    )

    parameters = dict(model.named_parameters())
    for key, name in names_of(model).items():
        if key in parameters:
            gradient = parameters[key].grad
            assert gradient is not None
            tolerance = 1e-2 if name.startswith("osmn/modulator/conv") else 2e-5  # max-pool ties of the blank margin
            assert gradient.norm().item() == pytest.approx(numbers["grad_norm"][name], rel=tolerance), name

    optimiser.step()
    stepped = to_official(model.float())
    for name in (key.split("/", 2)[2] for key in arrays if key.startswith(f"{mode}/after_step1/")):
        if "moving" not in name and not name.startswith("osmn/modulator/conv"):
            np.testing.assert_allclose(stepped[name], arrays[f"{mode}/after_step1/{name}"], atol=6e-8, rtol=1.2e-7)


def _check_moving_statistics(model: OSMN, wanted: dict[str, np.ndarray[Any, Any]]) -> None:
    assert wanted
    state = to_official(model)
    for name, value in wanted.items():
        np.testing.assert_allclose(state[name], value, atol=1e-6, rtol=1e-6)


def test_loss_does_not_change_when_object_and_background_swap() -> None:
    logits, labels = torch.randn(2, 1, 6, 5), torch.rand(2, 1, 6, 5) > 0.7
    swapped = balanced_cross_entropy(-logits, ~labels)
    torch.testing.assert_close(balanced_cross_entropy(logits, labels), swapped)


def test_certain_and_right_costs_nothing() -> None:
    labels = torch.rand(1, 1, 8, 8) > 0.5
    logits = torch.where(labels, 50.0, -50.0)
    assert balanced_cross_entropy(logits, labels).item() == pytest.approx(0, abs=1e-6)


def test_adam_adds_epsilon_as_tensorflow_does() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    parameter.grad = torch.full((1,), 1e-8, dtype=torch.float64)
    TensorFlowAdam([parameter], lr=1.0).step()
    # t = 1: sqrt(1 - b2) / (1 - b1) * (1 - b1) g / (sqrt(1 - b2) g + eps)
    root = np.sqrt(1e-3)
    assert parameter.item() == pytest.approx(-root * 1e-8 / (root * 1e-8 + 1e-8))
