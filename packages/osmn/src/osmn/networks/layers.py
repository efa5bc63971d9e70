"""Layers with TensorFlow's geometry: SAME padding and pooling, frozen bilinear upsampling, modulation."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Cells that SAME adds before and after an axis of `size` cells; the odd one goes after."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def pad_same(x: Tensor, kernel: int, stride: int, value: float = 0.0) -> Tensor:
    """Pad [..., H, W] so that a VALID window of this kernel and stride gives ceil(size / stride) cells."""
    top, bottom = same_padding(x.shape[-2], kernel, stride)
    left, right = same_padding(x.shape[-1], kernel, stride)
    return F.pad(x, (left, right, top, bottom), value=value) if top + bottom + left + right else x


def max_pool_same(x: Tensor, kernel: int = 2, stride: int = 2) -> Tensor:
    """SAME max-pool: the output has ceil(size / stride) cells, padding never wins."""
    if kernel == stride == 2:  # The missing cell lies at the bottom or right, which is what ceil_mode does.
        return F.max_pool2d(x, 2, 2, ceil_mode=True)
    return F.max_pool2d(pad_same(x, kernel, stride, float("-inf")), kernel, stride)


def avg_pool_same(x: Tensor, kernel: int = 2) -> Tensor:
    """SAME average pool with stride = kernel; windows at the edge divide by their real cells."""
    return F.avg_pool2d(x, kernel, kernel, ceil_mode=True)


def bilinear_kernel(size: int) -> Tensor:
    """The frozen kernel of the upsampling deconvolutions, [size, size] for even sizes."""
    taps = 1 - (torch.arange(size, dtype=torch.float64) - (size / 2 - 0.5)).abs() / (size / 2)
    return torch.outer(taps, taps).float()


class BilinearUpsampling(nn.Module):
    """VALID transposed convolution with a frozen bilinear kernel, then a centre crop to the frame.

    The official kernel is a full [k, k, C, C] tensor that is diagonal over channels; one depthwise kernel says as much.
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


def resize_legacy_bilinear(x: Tensor, size: tuple[int, int]) -> Tensor:
    """TensorFlow 1's bilinear resize: source = target * in / out without a half-pixel shift, clamped at the edge.

    [B, C, h, w] -> [B, C, H, W].
    """
    rows, columns = (
        _interpolation_matrix(cells, target, x.device, x.dtype)
        for cells, target in zip(x.shape[-2:], size, strict=True)
    )
    return rows @ x @ columns.T


def _interpolation_matrix(cells: int, target: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    position = torch.arange(target, dtype=torch.float64) * (cells / target)
    low = position.floor().long().clamp(max=cells - 1)
    high = (low + 1).clamp(max=cells - 1)
    weight = (position - low)[:, None]
    eye = torch.eye(cells, dtype=torch.float64)
    return (eye[low] * (1 - weight) + eye[high] * weight).to(device, dtype)  # [target, cells]


class ConvNorm(nn.Module):
    """Convolution without bias, SAME padding, batch norm; ReLU or ReLU6 is the caller's."""

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
    """What a side output adds to the score map: its 3x3 convolution and its part of the 1x1 fusion, both linear.

    Together they are one convolution to one channel, and what follows (upsampling, sum) is linear, too, so sixteen
    channels never exist. Nine dot products a cell, then shifted sums: convolution libraries are slow at one channel.

    Args:
        x: [K, C, h, w].
        side: the 3x3 convolution from C channels.
        fuse: its part of the fusion's kernel, [1, channels of `side`, 1, 1].

    Returns:
        [K, 1, h, w].
    """
    assert isinstance(side, nn.Conv2d)
    assert side.bias is not None
    weights = fuse.flatten()
    kernel = torch.einsum("o,oihw->ihw", weights, side.weight).flatten(1)  # [C, 9]
    taps = x.permute(0, 2, 3, 1).flatten(1, 2) @ kernel.flip(1)  # [K, h w, 9]: what each cell gives its neighbours
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
