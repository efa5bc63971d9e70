"""Convolutions that are quick on a processor beside PyTorch's."""

from __future__ import annotations

from copy import deepcopy
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor, nn

from vos_shared.layers import products, quick_convolutions, winograd
from vos_shared.layers.quick_convolutions import LEAST_PIXELS, use_quick_convolutions

WIDE = 64


def layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(WIDE, WIDE, 3, padding=2, dilation=2, bias=False),
        nn.LeakyReLU(0.1, inplace=True),
        nn.Conv2d(WIDE, WIDE, 1, bias=False),
        nn.BatchNorm2d(WIDE),
        nn.ReLU(inplace=True),
        nn.Conv2d(WIDE, WIDE, 3, padding=1),
        nn.Conv2d(WIDE, WIDE, 1, stride=2),
    )


def loss_and_gradients(network: nn.Module, maps: Tensor) -> list[Tensor]:
    maps = maps.clone().requires_grad_()
    loss = network(maps).square().mean()
    loss.backward()
    return [loss.detach(), maps.grad, *(parameter.grad for parameter in network.parameters())]


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("sizes", [(2, 31, 34), (1, 5, 7)])
def test_a_network_trains_as_before(
    linear: bool, last: bool, sizes: tuple[int, int, int], device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "products_are_faster", lambda: linear)
    plain = layers().to(device)
    quick = deepcopy(plain)
    use_quick_convolutions(quick)
    batch, height, width = sizes
    maps = torch.randn(batch, WIDE, height, width, device=device)
    if last:
        maps, quick = maps.contiguous(memory_format=torch.channels_last), quick.to(memory_format=torch.channels_last)
    spy, product = Mock(wraps=winograd.trained_convolve), Mock(wraps=nn.functional.linear)
    monkeypatch.setattr(quick_convolutions, "trained_convolve", spy)
    monkeypatch.setattr(nn.functional, "linear", product)
    for found, expected in zip(loss_and_gradients(quick, maps), loss_and_gradients(plain, maps), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert spy.call_count == (2 if device.type == "cpu" and batch * height * width >= LEAST_PIXELS else 0)
    assert product.call_count == (2 if device.type == "cpu" and linear else 0)
    assert quick.state_dict().keys() == plain.state_dict().keys()


def test_only_wide_layers_of_these_kinds_change() -> None:
    kept = [
        nn.Conv2d(WIDE - 1, WIDE, 3, padding=1),
        nn.Conv2d(WIDE - 1, WIDE, 1),
        nn.Conv2d(WIDE, WIDE, 1, padding=1),
        nn.Conv2d(WIDE, WIDE, 1, groups=2),
        nn.Conv2d(WIDE, WIDE, 1, stride=(1, 2)),
        nn.Conv2d(WIDE, WIDE, 3),
        nn.Conv2d(WIDE, WIDE, 3, 2, padding=1),
        nn.ConvTranspose2d(WIDE, WIDE, 1),
        nn.Linear(WIDE, WIDE),
    ]
    types = [type(layer) for layer in kept]
    use_quick_convolutions(nn.Sequential(*kept))
    assert [type(layer) for layer in kept] == types


@pytest.mark.parametrize("half", [torch.bfloat16, None])
def test_half_precision_is_as_before(half: torch.dtype | None) -> None:
    plain = layers().to(half or torch.float32).eval()
    quick = deepcopy(plain)
    use_quick_convolutions(quick)
    maps = torch.randn(1, WIDE, 33, 33, dtype=half)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=half is None):
        torch.testing.assert_close(quick(maps), plain(maps), rtol=2e-2, atol=2e-2)
        assert torch.equal(quick[0](maps), plain[0](maps))
