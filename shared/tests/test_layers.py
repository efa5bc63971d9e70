"""Layers that official checkpoints need, against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from vos_shared.layers.imagenet import normalise_images
from vos_shared.layers.losses import balanced_cross_entropy
from vos_shared.layers.tensorflow import (
    avg_pool_same,
    kernel_from_tensorflow,
    kernel_to_tensorflow,
    max_pool_same,
    pad_same,
    resize_legacy_bilinear,
)
from vos_shared.layers.upsampling import BilinearUpsampling, bilinear_kernel


@pytest.mark.parametrize("size", [(480, 854), (93, 150), (360, 640), (16, 17)])
def test_upsampling_crops_to_the_frame(size: tuple[int, int]) -> None:
    x = torch.ones(1, 2, *size)
    for level in range(1, 5):
        x = max_pool_same(x)
        up = BilinearUpsampling(2**level)(x, size)
        assert up.shape[-2:] == size
        # Away from the border the bilinear kernels of neighbouring cells add up to one.
        inner = up[..., 2**level : -(2**level) or None, 2**level : -(2**level) or None]
        if inner.numel() and min(x.shape[-2:]) > 3:
            torch.testing.assert_close(inner[..., :4, :4], torch.ones_like(inner[..., :4, :4]))


def test_depthwise_upsampling_equals_the_full_official_kernel() -> None:
    x = torch.randn(1, 3, 5, 4)
    full = torch.diag_embed(bilinear_kernel(8)[..., None].expand(8, 8, 3)).permute(2, 3, 0, 1)
    wanted = F.conv_transpose2d(x, full, stride=4)[..., 2:22, 2:18]
    torch.testing.assert_close(BilinearUpsampling(4)(x, (20, 16)), wanted)


def test_legacy_resize_keeps_corners_and_has_no_half_pixel_shift() -> None:
    x = torch.arange(4.0)[None, None, None].expand(1, 1, 2, 4)
    resized = resize_legacy_bilinear(x, (4, 8))
    torch.testing.assert_close(resized[0, 0, 0], torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.0]))


def test_legacy_resize_equals_its_definition() -> None:
    """source = target * in / out, bilinear, the last cell repeated."""
    x = torch.randn(2, 3, 5, 4)
    resized = resize_legacy_bilinear(x, (7, 11))
    for row in range(7):
        for column in range(11):
            y, z = row * 5 / 7, column * 4 / 11
            top, left = int(y), int(z)
            bottom, right = min(top + 1, 4), min(left + 1, 3)
            above = x[..., top, left] * (1 - z + left) + x[..., top, right] * (z - left)
            below = x[..., bottom, left] * (1 - z + left) + x[..., bottom, right] * (z - left)
            torch.testing.assert_close(resized[..., row, column], above * (1 - y + top) + below * (y - top))


@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (3, 1), (3, 2)])
@pytest.mark.parametrize("size", [(7, 8), (5, 5), (1, 3)])
def test_same_pooling_has_as_many_cells_as_tensorflow_and_padding_never_wins(
    kernel: int, stride: int, size: tuple[int, int]
) -> None:
    pooled = max_pool_same(-torch.rand(1, 1, *size) - 1, kernel, stride)
    assert pooled.shape[-2:] == tuple(-(-cells // stride) for cells in size)
    assert pooled.max() < 0
    assert pad_same(torch.zeros(1, 1, *size), kernel, stride).shape[-1] >= size[1]


def test_average_pooling_divides_by_real_cells() -> None:
    torch.testing.assert_close(avg_pool_same(torch.ones(1, 1, 5, 3)), torch.ones(1, 1, 3, 2))


def test_kernels_change_their_layout_and_back() -> None:
    plain, depthwise = np.random.rand(3, 5, 4, 7), np.random.rand(3, 5, 4, 1)  # noqa: NPY002
    assert kernel_from_tensorflow(plain).shape == (7, 4, 3, 5)
    assert kernel_from_tensorflow(plain)[6, 2, 1, 4] == plain[1, 4, 2, 6]
    assert kernel_from_tensorflow(depthwise, depthwise=True).shape == (4, 1, 3, 5)
    np.testing.assert_array_equal(kernel_to_tensorflow(kernel_from_tensorflow(plain)), plain)
    back = kernel_to_tensorflow(kernel_from_tensorflow(depthwise, depthwise=True), depthwise=True)
    np.testing.assert_array_equal(back, depthwise)


def test_balanced_cross_entropy_weighs_either_class_by_the_other() -> None:
    logits, labels = torch.randn(2, 1, 6, 5), torch.rand(2, 1, 6, 5) > 0.8
    share = labels.float().mean()
    weight = torch.where(labels, 1 - share, share)
    expected = F.binary_cross_entropy_with_logits(logits, labels.float(), weight, reduction="sum")
    torch.testing.assert_close(balanced_cross_entropy(logits, labels), expected)


def test_normalised_images_have_mean_0_and_deviation_1_where_imagenet_has_its_own() -> None:
    image = torch.tensor([0.485, 0.456, 0.406])[:, None, None].expand(3, 2, 2)
    torch.testing.assert_close(normalise_images(image), torch.zeros(3, 2, 2))
    one_more = image + torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    torch.testing.assert_close(normalise_images(one_more), torch.ones(3, 2, 2))
