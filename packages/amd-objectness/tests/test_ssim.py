"""Structural similarity and its gradient beside plain operations."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from amd_objectness.ssim import distances_and_gradient, structural_distance


def plain_distances(first: Tensor, second: Tensor) -> Tensor:
    def box(maps: Tensor) -> Tensor:
        return F.avg_pool2d(maps, 3, 1)

    mean1, mean2 = box(first), box(second)
    variances = box(first**2) - mean1**2 + box(second**2) - mean2**2
    covariance = box(first * second) - mean1 * mean2
    similarity = (2 * mean1 * mean2 + 1e-4) * (2 * covariance + 9e-4)
    similarity = similarity / ((mean1**2 + mean2**2 + 1e-4) * (variances + 9e-4))
    return ((1 - similarity) / 2).clamp(0, 1)


@pytest.mark.parametrize("size", [(7, 9), (3, 3), (5, 30)])
def test_distances_and_gradients_are_those_of_average_pooling(size: tuple[int, int], device: torch.device) -> None:
    torch.manual_seed(0)
    made, images = torch.rand(2, 3, 2, *size, dtype=torch.float64).to(device)
    made.requires_grad_()
    weights = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64, device=device)
    expected, found = plain_distances(made, images).mean((1, 2, 3)), structural_distance(made, images)
    torch.testing.assert_close(found, expected)
    wanted, ours = (torch.autograd.grad((means * weights).sum(), made)[0] for means in (expected, found))
    torch.testing.assert_close(ours, wanted)
    assert ours.abs().min() > 0


def test_equal_images_are_not_distant_and_opposite_ones_are() -> None:
    torch.manual_seed(2)
    images = torch.rand(2, 3, 9, 9)
    distances, gradient = distances_and_gradient(images, images)
    assert distances.min() >= 0
    assert distances.max() < 1e-6
    assert gradient.abs().max() < 1e-4
    assert structural_distance(1 - images, images).min() > 0.8


def test_a_gradient_of_the_images_is_refused() -> None:
    made, images = torch.rand(2, 1, 3, 8, 8)
    with pytest.raises(ValueError, match="get no gradient"):
        structural_distance(made, images.requires_grad_())
