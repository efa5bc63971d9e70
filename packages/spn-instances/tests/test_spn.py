"""Spatial propagation: the official kernel's numbers, its gradients, and properties of its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from spn_instances.spn import Normalisation, SpatialPropagation, normalise_gates, propagate
from vos_shared.testing import parity_folder


@pytest.fixture(scope="module")
def official() -> dict[str, Tensor]:
    arrays = np.load(parity_folder("spn-instances") / "fixture_spn.npz")
    return {name: torch.from_numpy(arrays[name]) for name in arrays.files if arrays[name].dtype == np.float32}


def by_sample(gates: Tensor) -> Tensor:
    """Gates as the official numbers store them, [4, ways, N, C, H, W], to [N, 4, ways, C, H, W]."""
    return gates.permute(2, 0, 1, 3, 4, 5)


@pytest.mark.parametrize("how", ["always", "clip"])
def test_scans_and_rounds_are_the_official_kernels(
    official: dict[str, Tensor], how: Normalisation, device: torch.device
) -> None:
    x, raw = official["X"].to(device), by_sample(official["graw"]).to(device)
    gates = normalise_gates(raw, how)
    torch.testing.assert_close(gates.cpu(), by_sample(official[f"g_{how}"]), atol=1e-6, rtol=0)
    expected = torch.stack([official[f"h_{how}_{direction}"] for direction in ("lr", "rl", "tb", "bt")])
    torch.testing.assert_close(propagate(x, gates).cpu(), expected, atol=1e-5, rtol=0)
    for rounds, name in enumerate(("max", "max2"), start=1):
        result = SpatialPropagation(how, rounds)(x, raw.flatten(1, 3))
        torch.testing.assert_close(result.cpu(), official[f"{name}_{how}"], atol=1e-5, rtol=0)


def test_gradients_are_the_official_kernels(official: dict[str, Tensor], device: torch.device) -> None:
    gates = by_sample(official["g_always"]).to(device).requires_grad_()
    x = official["X"].to(device).requires_grad_()
    for place, direction in enumerate(("lr", "rl", "tb", "bt")):
        loss = (propagate(x, gates)[place] * official[f"R_{direction}"].to(device)).sum()
        to_x, to_gates = torch.autograd.grad(loss, (x, gates))
        torch.testing.assert_close(to_x.cpu(), official[f"dX_{direction}"], atol=1e-5, rtol=0)
        expected = official[f"dG_{direction}"].transpose(0, 1)
        torch.testing.assert_close(to_gates[:, place].cpu(), expected, atol=1e-5, rtol=0)


def test_one_way_scans_are_the_official_ones(official: dict[str, Tensor]) -> None:
    gates = by_sample(official["p_oneway"][:, None])
    scans = propagate(official["X"], gates)
    torch.testing.assert_close(scans, official["oneway"], atol=1e-5, rtol=0)
    torch.testing.assert_close(scans.amax(0), official["oneway_max"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("ways", [1, 3])
@pytest.mark.parametrize("how", ["always", "clip"])
def test_gradients_are_those_of_finite_differences(ways: int, how: Normalisation) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 2, 3, 4, generator=generator, dtype=torch.float64).requires_grad_()
    gates = torch.randn(1, 4 * ways * 2, 3, 4, generator=generator, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(SpatialPropagation(how, rounds=2), (x, gates))


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1), (2, 3)])
def test_maps_of_any_size_are_scanned(size: tuple[int, int]) -> None:
    x, gates = torch.randn(2, 3, *size), torch.randn(2, 36, *size)
    result = SpatialPropagation(rounds=2)(x, gates)
    assert result.shape == x.shape
    if size == (1, 1):
        torch.testing.assert_close(result, x, msg="a single pixel has no neighbour")


def test_a_constant_map_does_not_change() -> None:
    x = torch.full((1, 2, 6, 5), 0.7)
    torch.testing.assert_close(SpatialPropagation(rounds=3)(x, torch.randn(1, 24, 6, 5)), x)


@pytest.mark.parametrize("how", ["always", "clip"])
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1.0, 1e30])
def test_positive_gates_of_any_size_keep_values_within_their_range(how: Normalisation, scale: float) -> None:
    x = torch.rand(1, 1, 30, 200)
    result = SpatialPropagation(how, rounds=2)(x, scale * torch.rand(1, 12, 30, 200))
    assert x.min() - 1e-5 <= result.min()
    assert result.max() <= x.max() + 1e-5


def test_with_gates_of_any_size_and_sign_values_grow_at_most_with_the_number_of_steps() -> None:
    x = torch.rand(1, 1, 8, 300) * 2 - 1
    scans = propagate(x, normalise_gates(1e20 * torch.randn(1, 4, 3, 1, 8, 300)))
    assert scans.isfinite().all()
    assert scans.abs().max() <= 2 * 300


def test_objects_and_channels_are_independent() -> None:
    x, gates = torch.randn(2, 2, 5, 6), torch.randn(2, 24, 5, 6)
    alone = SpatialPropagation()(x[1:, 1:], gates.view(2, 4, 3, 2, 5, 6)[1:, :, :, 1:])
    torch.testing.assert_close(SpatialPropagation()(x, gates)[1:, 1:], alone)


def test_mirrored_input_gives_mirrored_output() -> None:
    x, gates = torch.randn(1, 1, 5, 6), torch.randn(1, 4, 3, 1, 5, 6)
    mirrored = gates.flip(-1)[:, [1, 0, 2, 3]]
    mirrored[:, 2:] = mirrored[:, 2:].flip(2)  # Left neighbours of the vertical scans become right ones.
    torch.testing.assert_close(SpatialPropagation()(x.flip(-1), mirrored), SpatialPropagation()(x, gates).flip(-1))


def test_half_precision_is_computed_with_32_bits() -> None:
    x, gates = torch.rand(1, 1, 9, 400).half(), torch.rand(1, 12, 9, 400).half()
    result = SpatialPropagation()(x, gates.float())
    assert result.dtype == torch.float16
    torch.testing.assert_close(result, SpatialPropagation()(x.float(), gates.float()).half())


def test_gates_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit a map"):
        propagate(torch.zeros(1, 1, 4, 4), torch.zeros(1, 4, 2, 1, 4, 4))


def plain_left_to_right(x: Tensor, gates: Tensor) -> Tensor:
    """The three-way recurrence pixel by pixel: x [H, W] and gates [3, H, W] to [H, W]."""
    height, width = x.shape
    columns = [x[:, 0]]
    for t in range(1, width):
        pixels = []
        for i in range(height):
            value = x[i, t]
            for place, row in enumerate((i - 1, i, i + 1)):
                if 0 <= row < height:
                    value = value + gates[place, i, t] * (columns[-1][row] - x[i, t])
            pixels.append(value)
        columns.append(torch.stack(pixels))
    return torch.stack(columns, 1)


def test_long_scans_and_their_gradients_are_those_of_the_plain_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 70, generator=generator, dtype=torch.float64).requires_grad_()
    raw = torch.randn(1, 4, 3, 1, 3, 70, generator=generator, dtype=torch.float64)
    gates = normalise_gates(raw).requires_grad_()
    scans = propagate(x[None, None], gates)
    slopes = torch.randn(3, 70, generator=generator, dtype=torch.float64)
    plain = plain_left_to_right(x, gates[0, 0, :, 0]), plain_left_to_right(x.flip(1), gates[0, 1, :, 0].flip(2)).flip(1)
    for scan, expected in zip(scans[:2, 0, 0], plain, strict=True):
        torch.testing.assert_close(scan, expected)
        ours = torch.autograd.grad((scan * slopes).sum(), (x, gates), retain_graph=True)
        theirs = torch.autograd.grad((expected * slopes).sum(), (x, gates))
        torch.testing.assert_close(ours, theirs)
