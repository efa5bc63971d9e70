"""Layers that the trunks share: batch norm with frozen statistics, and a convolution followed by it."""

from __future__ import annotations

from typing import Self

from torch import Tensor, nn
from torch.nn import functional as F

from vos_shared.layers.tensorflow import pad_same


class FrozenBatchNorm(nn.BatchNorm2d):
    """Batch norm that always uses its stored statistics; scale and shift are learned (Caffe: use_global_stats)."""

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode."""
        return super().train(False)


class ConvNorm(nn.Module):
    """Convolution without bias, padded by half its kernel, and frozen batch norm; the caller applies the ReLU."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm = FrozenBatchNorm(outputs, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, ceil(H / stride), ceil(W / stride)]."""
        out: Tensor = self.norm(self.conv(x))
        return out


class SameConvNorm(ConvNorm):
    """`ConvNorm` with TensorFlow's SAME padding: an odd pixel of padding goes to the bottom or the right."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, ceil(H / stride), ceil(W / stride)]."""
        conv = self.conv
        padded = pad_same(x, conv.kernel_size[0], conv.stride[0])
        out: Tensor = self.norm(F.conv2d(padded, conv.weight, None, conv.stride, 0, 1, conv.groups))
        return out
