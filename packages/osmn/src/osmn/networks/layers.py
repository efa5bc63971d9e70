"""Layers of all variants: convolution with batch norm, side outputs, modulation."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vos_shared.layers.tensorflow import pad_same


class ConvNorm(nn.Module):
    """Convolution without bias, SAME padding, batch norm; the caller applies ReLU or ReLU6."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, momentum: float
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=1e-3, momentum=momentum)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, ceil(H / stride), ceil(W / stride)]."""
        padded = pad_same(x, self.conv.kernel_size[0], self.conv.stride[0])
        out: Tensor = self.norm(self.conv(padded))
        return out


def side_score(x: Tensor, side: nn.Module, fuse: Tensor) -> Tensor:
    """Contribution of a side output to the logits: its 3x3 convolution and its part of the 1x1 fusion, both linear.

    Both are merged into one convolution with one output channel; this is exact, as upsampling and sum are linear as
    well. Nine dot products per cell, then shifted sums compute it: convolution libraries are slow at one channel.

    Args:
        x: [K, C, h, w].
        side: the 3x3 convolution from C channels.
        fuse: its part of the fusion kernel, [1, channels of `side`, 1, 1].

    Returns:
        [K, 1, h, w].
    """
    assert isinstance(side, nn.Conv2d)
    assert side.bias is not None
    weights = fuse.flatten()
    kernel = torch.einsum("o,oihw->ihw", weights, side.weight).flatten(1)  # [C, 9]
    taps = x.permute(0, 2, 3, 1).flatten(1, 2) @ kernel.flip(1)  # [K, h w, 9]: from each cell to its neighbours
    return F.fold(taps.transpose(1, 2), x.shape[-2:], 3, padding=1) + weights @ side.bias


def modulate(x: Tensor, gamma: Tensor | None, beta: Tensor | None) -> Tensor:
    """gamma * x + beta (paper, equation 1); either may be missing.

    Args:
        x: [B, C, h, w]; B may be 1 for features that all objects share.
        gamma: one scale a channel, [K, C], or None.
        beta: one bias map a channel, [K, C, h, w], or None.
    """
    if gamma is None:
        return x if beta is None else x + beta
    scale = gamma[:, :, None, None]
    return x * scale if beta is None else torch.addcmul(beta, x, scale)
