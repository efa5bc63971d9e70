"""Batch norm with the statistics of all processes, on any device; PyTorch's own requires CUDA."""

from __future__ import annotations

import torch
from torch import Tensor, distributed, nn
from torch.distributed.nn.functional import all_reduce


def _processes() -> int:
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


@torch.no_grad()
def shared_mean(values: Tensor) -> Tensor:
    """Mean of a tensor over all processes, without gradient; all processes must call it."""
    processes = _processes()
    if processes == 1:
        return values
    total = values.clone()
    distributed.all_reduce(total)
    return total / processes


class SyncBatchNorm2d(nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` whose training statistics are taken over all processes.

    The maps of all processes must have the same size. In a single process it equals `torch.nn.BatchNorm2d`.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise maps, float [B, C, H, W]."""
        processes = _processes()
        if processes == 1 or not self.training:
            return super().forward(input)
        values = input.float()
        moments = torch.cat([values.mean((0, 2, 3)), values.square().mean((0, 2, 3))])
        mean, square = (all_reduce(moments) / processes).chunk(2)
        variance = (square - mean.square()).clamp_min(0)
        self._remember(mean.detach(), variance.detach(), processes * input.numel() // input.shape[1])
        # Not F.batch_norm: the gradient of the statistics must reach every process.
        scale = self.weight * (variance + self.eps).rsqrt()
        normalised = torch.addcmul((self.bias - mean * scale).view(1, -1, 1, 1), values, scale.view(1, -1, 1, 1))
        return normalised.to(input.dtype)

    def _remember(self, mean: Tensor, variance: Tensor, count: int) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * count / max(count - 1, 1), self.momentum)


def synchronise_batch_norms(module: nn.Module) -> None:
    """Turn all `torch.nn.BatchNorm2d` of a module into `SyncBatchNorm2d`, in place; the state stays."""
    for layer in module.modules():
        if type(layer) is nn.BatchNorm2d:
            layer.__class__ = SyncBatchNorm2d
