"""Training within inference."""

from __future__ import annotations

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


def test_memory_is_kept_until_the_end(memory_events: list[object]) -> None:
    with trained_online(torch.device("cpu")):
        memory_events.append("trained")
    assert memory_events == ["cpu", "trained", "given back"]
