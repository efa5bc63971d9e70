"""The scans of `spn_instances.spn` as Triton kernels for GPUs: one forward and one backward, for all directions.

A program scans one channel of one map in one direction. It computes a whole column at a time and reads the column
before from memory, shifted by one pixel for the neighbours, once all of its threads have written it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


def scans(x: Tensor, gates: Tensor) -> Tensor:
    """Scan in all four directions.

    Args:
        x: [N, C, H, W].
        gates: [4, ways, N, C, H, W].

    Returns:
        [4, N, C, H, W].
    """
    x, gates = x.contiguous(), _contiguous_maps(gates)
    h = x.new_empty(4, *x.shape)
    _scan[_grid(x)](x, gates, h, *_geometry(x, gates))
    return h


def scan_gradients(x: Tensor, gates: Tensor, h: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients for x, [N, C, H, W], and for the gates, [4, ways, N, C, H, W], from that of h."""
    x, gates, grad = x.contiguous(), _contiguous_maps(gates), grad.contiguous()
    errors, to_x = torch.empty_like(h), torch.empty_like(h)
    to_gates = x.new_empty(gates.shape)
    _scan_gradients[_grid(x)](x, gates, h, grad, errors, to_x, to_gates, *_geometry(x, gates))
    return to_x.sum(0), to_gates


def _contiguous_maps(gates: Tensor) -> Tensor:
    """Gates whose last two axes are one after the other in memory; the others may lie anyhow, or be shared."""
    return gates if gates.stride()[4:] == (gates.shape[5], 1) else gates.contiguous()


def _grid(x: Tensor) -> tuple[int, int]:
    return x.shape[0] * x.shape[1], 4


def _geometry(x: Tensor, gates: Tensor) -> tuple[int, ...]:
    number, channels, height, width = x.shape
    block = triton.next_power_of_2(max(height, width))
    return number, channels, height, width, *gates.stride()[:4], gates.shape[1], block


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _path(direction: tl.tensor, height: tl.tensor, width: tl.tensor) -> tuple[tl.tensor, ...]:
    """Pixels of a column, number of columns, strides from pixel to pixel and from column to column, and the start."""
    lines, steps = tl.where(direction < 2, height, width), tl.where(direction < 2, width, height)
    line_stride, step_stride = tl.where(direction < 2, width, 1), tl.where(direction < 2, 1, width)
    ahead = tl.where(direction % 2 == 0, step_stride, -step_stride)
    start = tl.where(direction % 2 == 0, 0, (steps - 1) * step_stride)
    return lines, steps, line_stride, ahead, start


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _scan(
    x: tl.tensor,
    gates: tl.tensor,
    h: tl.tensor,
    number: tl.tensor,
    channels: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    direction_stride: tl.tensor,
    way_stride: tl.tensor,
    number_stride: tl.tensor,
    channel_stride: tl.tensor,
    WAYS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Column t of the scan is x plus, for each neighbour in the column before, gate * (h there - x)."""
    plane, direction = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    lines, steps, line_stride, ahead, start = _path(direction, height, width)
    gates += direction * direction_stride + plane // channels * number_stride + plane % channels * channel_stride
    x += plane * height * width
    h += (direction * number * channels + plane) * height * width
    line = tl.arange(0, BLOCK)
    for step in range(steps):
        at = line * line_stride + start + step * ahead
        value = tl.load(x + at, mask=line < lines)
        now = value
        for way in tl.static_range(WAYS):
            k = way - WAYS // 2
            reads = (line < tl.where(step > 0, lines, 0)) & (line + k >= 0) & (line + k < lines)
            gate = tl.load(gates + way * way_stride + at, mask=reads, other=0.0)
            before = tl.load(h + at + k * line_stride - ahead, mask=reads, other=0.0, volatile=True)
            now += gate * (before - value)
        tl.store(h + at, now, mask=line < lines)
        tl.debug_barrier()


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _scan_gradients(
    x: tl.tensor,
    gates: tl.tensor,
    h: tl.tensor,
    grad: tl.tensor,
    errors: tl.tensor,
    to_x: tl.tensor,
    to_gates: tl.tensor,
    number: tl.tensor,
    channels: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    direction_stride: tl.tensor,
    way_stride: tl.tensor,
    number_stride: tl.tensor,
    channel_stride: tl.tensor,
    WAYS: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """From the last column to the first: errors flow back along the gates of the pixels that read a pixel."""
    plane, direction = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    lines, steps, line_stride, ahead, start = _path(direction, height, width)
    gates += direction * direction_stride + plane // channels * number_stride + plane % channels * channel_stride
    planes = number * channels
    x += plane * height * width
    scan = (direction * planes + plane) * height * width
    h, grad, errors, to_x = h + scan, grad + scan, errors + scan, to_x + scan
    line = tl.arange(0, BLOCK)
    for back in range(steps):
        step = steps - 1 - back
        at = line * line_stride + start + step * ahead
        error = tl.load(grad + at, mask=line < lines)
        for way in tl.static_range(WAYS):
            k = way - WAYS // 2
            is_read = (line < tl.where(back > 0, lines, 0)) & (line - k >= 0) & (line - k < lines)
            reader = at - k * line_stride + ahead
            gate = tl.load(gates + way * way_stride + reader, mask=is_read, other=0.0)
            error += gate * tl.load(errors + reader, mask=is_read, other=0.0, volatile=True)
        tl.store(errors + at, error, mask=line < lines)
        tl.debug_barrier()
        value = tl.load(x + at, mask=line < lines)
        share = error
        for way in tl.static_range(WAYS):
            k = way - WAYS // 2
            reads = (line < tl.where(step > 0, lines, 0)) & (line + k >= 0) & (line + k < lines)
            share -= error * tl.load(gates + way * way_stride + at, mask=reads, other=0.0)
            before = tl.load(h + at + k * line_stride - ahead, mask=reads, other=0.0)
            slope = tl.where(reads, error * (before - value), 0.0)
            tl.store(
                to_gates + ((direction * WAYS + way) * planes + plane) * height * width + at, slope, mask=line < lines
            )
        tl.store(to_x + at, share, mask=line < lines)
