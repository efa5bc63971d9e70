"""Upsampling by transposed convolution with a frozen bilinear kernel."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def bilinear_kernel(size: int) -> Tensor:
    """Bilinear kernel [size, size] of a transposed convolution with stride size / 2; `size` is even."""
    taps = 1 - (torch.arange(size, dtype=torch.float64) - (size / 2 - 0.5)).abs() / (size / 2)
    return torch.outer(taps, taps).float()


class BilinearUpsampling(nn.Module):
    """Transposed convolution without padding, with a frozen bilinear kernel, then a centre crop.

    The official kernel [k, k, C, C] is diagonal over channels and thus equals one depthwise kernel.
    """

    kernel: Tensor

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.register_buffer("kernel", bilinear_kernel(2 * stride), persistent=False)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """[B, C, h, w] -> [B, C, H, W]; the crop starts at floor((upsampled - size) / 2) on each axis."""
        channels = x.shape[1]
        weight = self.kernel.to(x.dtype).expand(channels, 1, -1, -1)
        up = F.conv_transpose2d(x, weight, stride=self.stride, groups=channels)
        top, left = (up.shape[-2] - size[0]) // 2, (up.shape[-1] - size[1]) // 2
        return up[..., top : top + size[0], left : left + size[1]]
