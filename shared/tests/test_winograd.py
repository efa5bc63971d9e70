"""Winograd's algorithm beside PyTorch's convolution."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from vos_shared.layers import products, winograd
from vos_shared.layers.winograd import (
    LEAST_CHANNELS,
    WinogradConvolution,
    convolve,
    trained_convolve,
    transformed_kernels,
    use_winograd,
)

SIZES = st.integers(1, 20)


def plain(maps: Tensor, weight: Tensor, dilation: int = 1) -> Tensor:
    return F.conv2d(maps, weight, padding=dilation, dilation=dilation)


@settings(max_examples=150, deadline=None)
@given(SIZES, SIZES, st.integers(1, 7), st.integers(1, 3), st.booleans())
def test_every_size_and_dilation_is_the_plain_convolution(
    height: int, width: int, dilation: int, batch: int, last: bool
) -> None:
    torch.manual_seed(0)
    maps = torch.randn(batch, 3, height, width, dtype=torch.float64)
    weight = torch.randn(2, 3, 3, 3, dtype=torch.float64)
    maps = maps.contiguous(memory_format=torch.channels_last) if last else maps
    bias = torch.randn(2, dtype=torch.float64)
    found = convolve(maps, transformed_kernels(weight), dilation, bias)
    torch.testing.assert_close(found, plain(maps, weight, dilation) + bias[:, None, None], rtol=0, atol=1e-11)


def test_channels_and_batches_of_several_rounds_are_the_plain_convolution() -> None:
    torch.manual_seed(1)
    maps, weight = torch.randn(3, 600, 34, 60), torch.randn(3, 600, 3, 3)
    expected = plain(maps.double(), weight.double(), 2)
    found = convolve(maps, transformed_kernels(weight), 2)
    assert float((found - expected).abs().max() / expected.abs().max()) < 3e-5


def test_a_kernel_of_one_tap_moves_the_map() -> None:
    maps, weight = torch.rand(1, 1, 9, 14, dtype=torch.float64), torch.zeros(1, 1, 3, 3, dtype=torch.float64)
    weight[0, 0, 0, 2] = 1  # The cell above and to the right, six cells away.
    found = convolve(maps, transformed_kernels(weight), 6)
    torch.testing.assert_close(found, F.pad(maps, (0, 6, 6, 0))[..., :9, 6:], rtol=0, atol=1e-13)


def test_a_network_gives_the_same_and_only_its_wide_plain_convolutions_are_replaced() -> None:
    torch.manual_seed(2)
    wide = LEAST_CHANNELS
    replaced = [nn.Conv2d(wide, wide, 3, padding=1), nn.Conv2d(wide, wide, 3, padding=2, dilation=2, bias=False)]
    kept = [
        nn.Conv2d(wide, wide, 3, 2, padding=1),
        nn.Conv2d(wide, wide, 3),
        nn.Conv2d(wide, wide, 3, padding=2),
        nn.Conv2d(wide, wide, 3, padding=1, groups=wide),
        nn.Conv2d(wide, wide, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(wide, wide, 1),
        nn.Conv2d(wide, wide, (3, 1), padding=(1, 0)),
        nn.Conv2d(wide, wide - 1, 3, padding=1),
    ]
    inner = nn.Sequential(*replaced)
    network = nn.Sequential(inner, *kept).double().eval()
    maps = torch.randn(1, wide, 13, 21, dtype=torch.float64)
    with torch.no_grad():
        expected = network(maps)
        use_winograd(network)
        torch.testing.assert_close(network(maps), expected, rtol=1e-9, atol=1e-11)
    assert [type(layer) for layer in inner] == [WinogradConvolution] * 2
    assert list(network)[1:] == kept


def test_the_weights_of_the_replaced_convolution_stay_its_own() -> None:
    layer = nn.Conv2d(3, 4, 3, padding=1)
    frozen = WinogradConvolution(layer)
    maps = torch.rand(1, 3, 8, 8)
    before = frozen(maps)
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.zero_()  # type: ignore[union-attr]
    assert torch.equal(frozen(maps), before)
    assert not list(frozen.parameters())


@pytest.mark.parametrize("sizes", [(1, 1), (4, 4), (5, 3)])
def test_a_map_of_zeros_gives_the_bias(sizes: tuple[int, int]) -> None:
    layer = nn.Conv2d(3, 2, 3, padding=1)
    expected = layer.bias.detach()[:, None, None].expand(2, *sizes)  # type: ignore[union-attr]
    torch.testing.assert_close(WinogradConvolution(layer)(torch.zeros(1, 3, *sizes))[0], expected)


def gradients(outputs: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    torch.manual_seed(5)
    return torch.autograd.grad(outputs, inputs, torch.randn(outputs.shape).to(outputs))


@settings(max_examples=100, deadline=None)
@given(SIZES, SIZES, st.integers(1, 7), st.integers(1, 3), st.booleans())
def test_gradients_of_every_size_and_dilation_are_those_of_the_plain_convolution(
    height: int, width: int, dilation: int, batch: int, last: bool
) -> None:
    torch.manual_seed(0)
    maps = torch.randn(batch, 3, height, width, dtype=torch.float64)
    maps = (maps.contiguous(memory_format=torch.channels_last) if last else maps).requires_grad_()
    weight = torch.randn(2, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(2, dtype=torch.float64, requires_grad=True)
    expected = F.conv2d(maps, weight, bias, padding=dilation, dilation=dilation)
    found = trained_convolve(maps, weight, dilation, bias)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)
    pairs = zip(gradients(found, maps, weight, bias), gradients(expected, maps, weight, bias), strict=True)
    for ours, plain_one in pairs:
        torch.testing.assert_close(ours, plain_one, rtol=0, atol=1e-10)


@pytest.mark.parametrize("groups", [False, True])
@pytest.mark.parametrize(("channels", "size"), [(1030, 66), (32, 300)])
def test_gradients_of_several_strips_and_of_many_channels(
    channels: int, size: int, groups: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More tiles than a strip takes; strips add up, and do not see each other's memory."""
    monkeypatch.setattr(products, "groups_are_faster", lambda rows: groups)
    torch.manual_seed(6)
    maps = torch.randn(2, channels, size, size, requires_grad=True)
    weight = torch.randn(3, channels, 3, 3, requires_grad=True)
    assert maps[:, 0].numel() / 16 > 2 * winograd._STRIP / channels
    exact_maps, exact_weight = (tensor.detach().double().requires_grad_() for tensor in (maps, weight))
    expected = gradients(plain(exact_maps, exact_weight), exact_maps, exact_weight)
    for _ in range(2):
        found = gradients(trained_convolve(maps, weight), maps, weight)
        for ours, plain_one in zip(found, expected, strict=True):
            assert float((ours - plain_one).abs().max() / plain_one.abs().max()) < 5e-5


def test_what_is_not_trained_needs_no_gradient_and_activations_may_overwrite_the_outputs() -> None:
    maps, weight = torch.rand(1, 3, 9, 8), torch.rand(2, 3, 3, 3, requires_grad=True)
    outputs = F.relu(trained_convolve(maps, weight) - 5, inplace=True)
    outputs = F.leaky_relu(trained_convolve(maps, weight), 0.1, inplace=True) + outputs
    expected = F.leaky_relu(plain(maps, weight), 0.1) + F.relu(plain(maps, weight) - 5)
    torch.testing.assert_close(gradients(outputs, weight), gradients(expected, weight), rtol=1e-4, atol=1e-4)


def test_what_one_layer_leaves_in_memory_does_not_reach_the_next() -> None:
    """In any order of sizes, types and modes."""
    torch.manual_seed(3)
    wide, double, small = (
        torch.randn(1, 9, 30, 20) / 2,
        torch.randn(2, 4, 7, 9, dtype=torch.float64),
        torch.randn(1, 2, 5, 5),
    )
    cases = [(wide, 5), (double, 6), (small, 3)]
    convolve(torch.full((1, 600, 40, 40), torch.nan), torch.full((36, 8, 600), torch.nan))
    for inference in (True, False, True):
        for maps, channels in (*cases, *reversed(cases)):
            weight = torch.randn(channels, maps.shape[1], 3, 3, dtype=maps.dtype)
            with torch.inference_mode(inference):
                found = convolve(maps, transformed_kernels(weight))
            assert float((found - plain(maps, weight)).abs().max()) < 1e-4


def test_threads_do_not_share_memory() -> None:
    torch.manual_seed(4)
    maps, kernels = torch.randn(24, 1, 16, 40, 40), transformed_kernels(torch.randn(16, 16, 3, 3))
    expected = [convolve(one, kernels) for one in maps]
    with ThreadPoolExecutor(4) as pool:
        for found, right in zip(pool.map(lambda one: convolve(one, kernels), maps), expected, strict=True):
            assert torch.equal(found, right)
