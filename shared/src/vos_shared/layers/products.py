"""Products of maps and kernels, by whichever of PyTorch's libraries computes them faster on this processor.

A 1x1 convolution is a matrix product, and many products of one size are one 1x1 convolution of as many groups. PyTorch
has a library for each, and neither of them is the faster one everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from vos_shared.runtime.cores import processor_name

LEAST_ROWS: Final = 256
"""Rows of each of many matrices from which on a convolution is faster on several threads (measured)."""


def products_are_faster() -> bool:
    """Whether matrix products are faster than 1x1 convolutions.

    They are on processors of Intel; on one of AMD they take a sixth more time on two threads (measured).
    """
    return _processor_is("Intel")


def groups_are_faster(rows: int) -> bool:
    """Whether a 1x1 convolution of many groups is faster than as many products of matrices of so many rows.

    It is on a processor of AMD on two threads, where products of 32 to 2048 channels take up to two thirds more time,
    but not on one thread (measured); on other processors that was not measured.
    """
    return rows >= LEAST_ROWS and torch.get_num_threads() > 1 and _processor_is("AMD")


@lru_cache
def _processor_is(maker: str) -> bool:
    return maker in processor_name()


def pointwise(maps: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int = 1) -> Tensor:
    """A 1x1 convolution, on some processors as the matrix product that it is.

    Args:
        maps: float [B, C, h, w], fastest where they are channels-last.
        weight: [C', C, 1, 1].
        bias: [C'].
        stride: of rows and columns.

    Returns:
        [B, C', h', w'], channels-last if `maps` are.
    """
    if not products_are_faster():
        return F.conv2d(maps, weight, bias, stride)
    pixels = maps[..., ::stride, ::stride].permute(0, 2, 3, 1)
    return F.linear(pixels, weight.flatten(1), bias).permute(0, 3, 1, 2)


def multiply(rows: Tensor, kernels: Tensor) -> Tensor:
    """Products of n matrices of rows with as many kernels.

    Args:
        rows: float [M, n, C].
        kernels: [n, C', C].

    Returns:
        [M, n, C'].
    """
    if groups_are_faster(len(rows)):
        return _grouped(F.conv2d, rows, kernels)
    return torch.bmm(rows.transpose(0, 1), kernels.transpose(1, 2)).transpose(0, 1)


def multiply_transposed(rows: Tensor, kernels: Tensor) -> Tensor:
    """As `multiply` with transposed kernels: float [M, n, C'] and [n, C', C] to [M, n, C]."""
    if groups_are_faster(len(rows)):
        return _grouped(F.conv_transpose2d, rows, kernels)
    return torch.bmm(rows.transpose(0, 1), kernels).transpose(0, 1)


def _grouped(convolution: Callable[..., Tensor], rows: Tensor, kernels: Tensor) -> Tensor:
    """The rows as pixels of one channels-last column, whose channels are n groups."""
    column = rows.flatten(1)[None, :, None].permute(0, 3, 1, 2)
    found = convolution(column, kernels.flatten(0, 1)[..., None, None], groups=len(kernels))
    return found.permute(0, 2, 3, 1).reshape(len(rows), len(kernels), -1)
