"""Training within inference."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import nn

from vos_shared.training.online import trained_online


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_gradients_are_computed_where_the_caller_computes_none(mode: type, device: torch.device) -> None:
    layer = nn.Linear(3, 2).to(device)
    with mode():
        with trained_online(device):
            layer(torch.ones(1, 3, device=device)).sum().backward()
            tf32 = torch.backends.cudnn.allow_tf32
        assert not layer(torch.ones(1, 3, device=device)).requires_grad
    assert layer.weight.grad is not None
    assert layer.weight.grad.tolist() == [[1, 1, 1], [1, 1, 1]]
    assert not tf32 or device.type != "cuda"


def test_memory_is_kept_until_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []

    @contextmanager
    def kept(device: torch.device) -> Iterator[None]:
        seen.append(device.type)
        yield
        seen.append("given back")

    monkeypatch.setattr("vos_shared.training.online.freed_memory_kept", kept)
    with trained_online(torch.device("cpu")):
        seen.append("trained")
    assert seen == ["cpu", "trained", "given back"]
