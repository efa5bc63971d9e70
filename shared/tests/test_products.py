"""Products of maps and kernels by either of PyTorch's libraries."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
import torch
import torch.nn.functional as F

from vos_shared.layers import products
from vos_shared.layers.products import (
    LEAST_ROWS,
    groups_are_faster,
    multiply,
    multiply_transposed,
    pointwise,
    products_are_faster,
)


@pytest.mark.parametrize(
    ("name", "matrices", "groups"),
    [
        ("Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz", True, False),
        ("Intel64 Family 6 Model 158, GenuineIntel", True, False),
        ("AMD EPYC", False, True),
        ("AMD64 Family 25 Model 33 Stepping 0, AuthenticAMD", False, True),
        ("arm", False, False),
    ],
)
def test_what_is_faster_depends_on_the_maker_of_the_processor(
    name: str, matrices: bool, groups: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "processor_name", lambda: name)
    monkeypatch.setattr(products, "_processor_is", products._processor_is.__wrapped__)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert products_are_faster() is matrices
    assert groups_are_faster(LEAST_ROWS) is groups
    assert not groups_are_faster(LEAST_ROWS - 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert not groups_are_faster(LEAST_ROWS)


@pytest.mark.parametrize("faster", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("last", [False, True])
def test_a_pointwise_convolution_keeps_its_numbers_and_layout(
    faster: bool, stride: int, last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "products_are_faster", lambda: faster)
    torch.manual_seed(0)
    maps = torch.randn(2, 5, 9, 6, dtype=torch.float64)
    maps = maps.contiguous(memory_format=torch.channels_last) if last else maps
    weight, bias = torch.randn(3, 5, 1, 1, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    found = pointwise(maps, weight, bias, stride)
    torch.testing.assert_close(found, F.conv2d(maps, weight, bias, stride))
    assert found.is_contiguous(memory_format=torch.channels_last) or not last


@pytest.mark.parametrize("groups", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (1, 3, 5, 2), (7, 36, 4, 6), (300, 36, 33, 17), (50, 2, 64, 64)])
def test_rows_are_multiplied_with_the_kernels_of_their_own_matrix(
    groups: bool, dtype: torch.dtype, sizes: tuple[int, int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "groups_are_faster", lambda rows: groups)
    convolution = Mock(wraps=F.conv2d)
    monkeypatch.setattr(F, "conv2d", convolution)
    torch.manual_seed(1)
    count, matrices, inputs, outputs = sizes
    rows = torch.randn(count, matrices, inputs, dtype=dtype)
    kernels = torch.randn(matrices, outputs, inputs, dtype=dtype)
    found = multiply(rows, kernels)
    torch.testing.assert_close(found, torch.einsum("mnc,ndc->mnd", rows, kernels), rtol=1e-5, atol=1e-4)
    back = multiply_transposed(found, kernels)
    torch.testing.assert_close(back, torch.einsum("mnd,ndc->mnc", found, kernels), rtol=1e-4, atol=1e-3)
    assert convolution.call_count == groups


@pytest.mark.parametrize("groups", [False, True])
def test_rows_may_be_a_view(groups: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "groups_are_faster", lambda rows: groups)
    torch.manual_seed(2)
    rows, kernels = torch.randn(36, 9, 5).transpose(0, 1), torch.randn(36, 3, 5)
    torch.testing.assert_close(multiply(rows, kernels), torch.einsum("mnc,ndc->mnd", rows, kernels))
