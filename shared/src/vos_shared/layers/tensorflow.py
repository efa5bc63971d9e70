"""TensorFlow's geometry: SAME padding and pooling, the legacy bilinear resize, the layout of kernels."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

Array = npt.NDArray[Any]


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Number of cells that SAME padding adds before and after an axis of `size` cells."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def pad_same(x: Tensor, kernel: int, stride: int, value: float = 0.0) -> Tensor:
    """Pad [..., H, W] so that a window without padding, of this kernel and stride, gives ceil(size / stride) cells."""
    top, bottom = same_padding(x.shape[-2], kernel, stride)
    left, right = same_padding(x.shape[-1], kernel, stride)
    return F.pad(x, (left, right, top, bottom), value=value) if top + bottom + left + right else x


def max_pool_same(x: Tensor, kernel: int = 2, stride: int = 2) -> Tensor:
    """Max pooling with SAME padding of minus infinity: the output has ceil(size / stride) cells."""
    if kernel == stride == 2:  # Only the bottom or right is padded, as with ceil_mode.
        return F.max_pool2d(x, 2, 2, ceil_mode=True)
    return F.max_pool2d(pad_same(x, kernel, stride, float("-inf")), kernel, stride)


def avg_pool_same(x: Tensor, kernel: int = 2) -> Tensor:
    """SAME average pooling with stride = kernel; padding does not count in the mean."""
    return F.avg_pool2d(x, kernel, kernel, ceil_mode=True)


def resize_legacy_bilinear(x: Tensor, size: tuple[int, int]) -> Tensor:
    """TensorFlow 1's bilinear resize, [B, C, h, w] -> [B, C, H, W].

    The source position is target * in / out, without a half-pixel shift, and clamped at the edge.
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


def kernel_from_tensorflow(kernel: Array, *, depthwise: bool = False) -> Array:
    """Convert a kernel to PyTorch's layout: HWIO to OIHW, depthwise HWC1 to C1HW; vectors stay as they are."""
    if depthwise:
        return kernel.transpose(2, 3, 0, 1)
    return kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel


def kernel_to_tensorflow(kernel: Array, *, depthwise: bool = False) -> Array:
    """The inverse of `kernel_from_tensorflow`."""
    if depthwise:
        return kernel.transpose(2, 3, 0, 1)
    return kernel.transpose(2, 3, 1, 0) if kernel.ndim == 4 else kernel
