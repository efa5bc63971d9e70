"""The objective: equal to the official numbers, and to its plain form that computes and warps all logits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dense_ulearn.losses import Losses, Offsets, check_cells, draw_offsets, training_losses
from dense_ulearn.networks import DenseNetwork
from dense_ulearn.objective import keys_of_views, make_optimiser, parameter_groups
from dense_ulearn.presets import ObjectiveSettings, Optimisation
from vos_shared.errors import UserError
from vos_shared.runtime.device import autocast

SMALL = ObjectiveSettings(grid=4, reference_grid=2)


def random_batch(seed: int, clips: int = 2, frames: int = 3, cells: int = 8) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Keys of both views and affine maps that zoom in, as in training."""
    generator = torch.Generator().manual_seed(seed)
    keys, other = (
        F.normalize(torch.randn(clips, frames, 16, cells, cells, generator=generator), dim=2) for _ in range(2)
    )
    scale = 0.5 + 0.5 * torch.rand(clips, generator=generator)
    shift = (2 * torch.rand(clips, 2, generator=generator) - 1) * (1 - scale)[:, None]
    sign = torch.where(torch.rand(clips, generator=generator) < 0.5, -1.0, 1.0)
    theta = torch.zeros(clips, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = sign * scale, scale, shift
    theta = theta[:, None].repeat(1, frames, 1, 1)
    return keys, other, theta, torch.eye(2, 3).expand_as(theta)


def warp(maps: Tensor, theta: Tensor) -> Tensor:
    grid = F.affine_grid(theta, list(maps.shape), align_corners=False)
    return F.grid_sample(maps, grid, mode="nearest", align_corners=False)


def plain_losses(
    keys: Tensor, other: Tensor, theta: Tensor, other_theta: Tensor, offsets: Offsets, objective: ObjectiveSettings
) -> tuple[Tensor, Tensor, Tensor]:
    """The definition step by step: logits over all anchors, warped; softmax, other clips set to zero, argmax."""
    clips, frames, _, height, width = keys.shape
    steps = torch.arange(objective.grid)
    anchors = []
    for clip in range(clips):
        x = steps * (width // objective.grid) + offsets.grid_x[clip]
        y = steps * (height // objective.grid) + offsets.grid_y[clip]
        anchors.append(keys[clip, 0][:, y][:, :, x].flatten(1).T)  # Rows of the grid first.
    count = objective.grid**2
    all_anchors = torch.cat(anchors)

    def logits(view: Tensor, maps: Tensor) -> Tensor:
        products = torch.einsum("ac,nchw->nahw", all_anchors, view.flatten(0, 1)) / objective.temperature
        return warp(products, maps.flatten(0, 1))

    probabilities = logits(other, other_theta).softmax(1).unflatten(0, (clips, frames)).clone()
    for clip in range(clips):
        probabilities[clip, :, : clip * count] = 0
        probabilities[clip, :, (clip + 1) * count :] = 0
    labels = probabilities.argmax(2)
    errors = F.cross_entropy(logits(keys, theta), labels.flatten(0, 1), reduction="none").unflatten(0, (clips, frames))
    temp = errors[:, 1:].mean()

    warped = [warp(view[:, 0], maps[:, 0]) for view, maps in ((keys, theta), (other, other_theta))]
    places: list[list[Tensor]] = [[], []]
    for clip in range(clips):
        for i in range(objective.reference_grid):
            for j in range(objective.reference_grid):
                row = i * (height // objective.reference_grid) + int(offsets.reference_y[clip])
                column = j * (width // objective.reference_grid) + int(offsets.reference_x[clip])
                for view in range(2):
                    places[view].append(warped[view][clip, :, row, column])
    main, second = (torch.stack(rows) for rows in places)
    cross = F.cross_entropy(main @ second.T / objective.temperature, torch.arange(len(main)))
    return labels, temp, cross


@pytest.mark.parametrize("seed", range(8))
def test_index_maps_and_own_anchors_give_the_numbers_of_the_plain_form(seed: int) -> None:
    keys, other, theta, other_theta = random_batch(seed)
    offsets = draw_offsets(2, 8, 8, SMALL, torch.Generator().manual_seed(seed))
    keys.requires_grad_()
    other.requires_grad_()
    labels, temp, cross = plain_losses(keys, other, theta, other_theta, offsets, SMALL)
    expected = torch.autograd.grad(temp + 0.1 * cross, (keys, other))
    found = training_losses(keys, other, theta, other_theta, offsets, SMALL)
    gradient = torch.autograd.grad(found.main, (keys, other))
    assert torch.equal(found.labels, labels)
    torch.testing.assert_close((found.temp, found.cross_key), (temp, cross), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(gradient, expected, atol=1e-7, rtol=1e-5)


def test_labels_are_anchors_of_the_own_clip() -> None:
    keys, other, theta, other_theta = random_batch(0, clips=3)
    offsets = draw_offsets(3, 8, 8, SMALL, torch.Generator().manual_seed(0))
    labels = training_losses(keys, other, theta, other_theta, offsets, SMALL).labels
    assert torch.equal(labels // SMALL.grid**2, torch.arange(3).view(3, 1, 1, 1).expand_as(labels))


def test_no_gradient_reaches_the_pseudo_labels() -> None:
    keys, other, theta, other_theta = random_batch(1)
    other.requires_grad_()
    offsets = draw_offsets(2, 8, 8, SMALL, torch.Generator().manual_seed(0))
    losses = training_losses(keys, other, theta, other_theta, offsets, SMALL)
    assert not losses.temp.requires_grad
    (gradient,) = torch.autograd.grad(losses.main, other)
    assert gradient[:, 0].any()  # Frame 0 has a gradient, from the cross-view loss alone.
    assert not gradient[:, 1:].any()


def test_a_pair_of_equal_views_that_are_told_apart_everywhere_costs_little() -> None:
    keys = torch.eye(64).view(1, 1, 64, 8, 8).repeat(1, 3, 1, 1, 1)
    identity = torch.eye(2, 3).expand(1, 3, 2, 3)
    offsets = Offsets(*(torch.zeros(1, dtype=torch.long) for _ in range(4)))
    assert training_losses(keys, keys, identity, identity, offsets, ObjectiveSettings()).main < 1e-5


def test_offsets_stay_within_one_step_and_come_in_the_published_order() -> None:
    offsets = draw_offsets(500, 32, 64, ObjectiveSettings(), torch.Generator().manual_seed(3))
    assert [int(offset.max()) for offset in offsets] == [7, 3, 15, 7]
    assert torch.equal(offsets.grid_x, torch.randint(8, (500,), generator=torch.Generator().manual_seed(3)))


def test_a_map_that_the_grid_does_not_divide_is_refused() -> None:
    with pytest.raises(UserError, match="10x8 cells cannot hold a regular 8x8 grid"):
        check_cells(10, 8, ObjectiveSettings())


@pytest.fixture
def official(parity: Path) -> dict[str, Tensor]:
    with np.load(parity / "fixture_loss.npz") as file:
        return {name: torch.from_numpy(value) for name, value in file.items() if value.dtype.kind in "fi"}


def official_losses(official: dict[str, Tensor], network: DenseNetwork, device: torch.device) -> Losses:
    """Losses of the official batch, with the offsets on the CPU as in training."""

    def forward(images: Tensor) -> Tensor:
        keys: Tensor = network(images).key
        return keys

    frames1, frames2, affine1, affine2 = (
        official[name].to(device) for name in ("frames1", "frames2", "affine1", "affine2")
    )
    keys = keys_of_views(forward, forward, frames1, frames2)
    offsets = Offsets(*(official[f"off_{name}"] for name in ("grid_x", "grid_y", "ref_x", "ref_y")))
    return training_losses(*keys, affine1, affine2, offsets, ObjectiveSettings())


def test_one_training_step_equals_the_official_one(
    official: dict[str, Tensor], recipe_network: DenseNetwork, parity: Path, device: torch.device
) -> None:
    network = recipe_network.to(device).train()
    optimiser = make_optimiser(network, Optimisation(lr=1e-4, weight_decay=5e-4))
    with autocast(device, torch.float32):
        losses = official_losses(official, network, device)
        losses.main.backward()
    for name in ("main", "temp", "cross_key"):
        assert getattr(losses, name).item() == pytest.approx(official[f"loss_{name}"].item(), abs=1e-5)
    assert torch.equal(losses.labels.cpu().flatten(0, 1), official["pseudo"])
    assert torch.equal(losses.anchor_cells.cpu(), official["index"].flatten(1))
    with np.load(parity / "fixture_loss.npz") as file:
        norms = dict(zip(file["grad_names"].tolist(), file["grad_norms"].tolist(), strict=True))
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None
        if name != "fast_net.emb_q.conv1.bias":  # A bias before a BatchNorm: its true gradient is 0.
            assert parameter.grad.norm().item() == pytest.approx(norms[name], rel=1e-3), name
        if f"grad/{name}" in official and name != "fast_net.emb_q.conv1.bias":
            torch.testing.assert_close(parameter.grad.cpu(), official[f"grad/{name}"], atol=1e-4, rtol=1e-3)
    optimiser.step()
    state = network.state_dict()
    for name, value in official.items():
        if name.startswith("after/"):
            # Adam's first step is the sign of the gradient; where the gradient is rounding noise, the sign may differ.
            difference = (state[name.removeprefix("after/")].cpu() - value).abs()
            assert (difference > 2e-5).float().mean() < 1e-3, name
            assert difference.max() <= 4.1e-4, name


def test_losses_with_running_statistics_equal_the_official_ones(
    official: dict[str, Tensor], recipe_network: DenseNetwork, device: torch.device
) -> None:
    with torch.no_grad(), autocast(device, torch.float32):
        losses = official_losses(official, recipe_network.to(device).eval(), device)
    for name in ("main", "temp", "cross_key"):
        assert getattr(losses, name).item() == pytest.approx(official[f"evalloss_{name}"].item(), abs=1e-5)


def test_weights_and_biases_are_two_groups() -> None:
    weights, biases = parameter_groups(DenseNetwork(), Optimisation(lr=0.25, weight_decay=0.5))
    assert [len(group["params"]) for group in (weights, biases)] == [43, 23]
    assert (weights["lr"], weights["weight_decay"]) == (0.25, 0.5)
    assert (biases["lr"], biases["weight_decay"]) == (0.5, 0)
