"""The propagation module of Liu et al. (NeurIPS 2017): linear recurrences over rows and columns.

A map x is scanned in four directions. In a left-to-right scan column t of the result is::

    h[i, t] = (1 - sum_k g_k[i, t]) * x[i, t] + sum_k g_k[i, t] * h[i + k, t - 1]

with k = 0 in the one-way form and k = -1, 0, 1 in the three-way form. A gate whose neighbour lies outside the map
counts as 0, so the first column of h is x. The other directions follow by symmetry; gates always belong to their own
pixel. The element-wise maximum over the directions is the result, which may be scanned again with the same gates.
"""

from __future__ import annotations

from importlib.util import find_spec
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

DIRECTIONS = ("left to right", "right to left", "top to bottom", "bottom to top")
"""The scans, in the order of their gates."""

Normalisation = Literal["always", "clip"]
"""How gates become stable, with s = sum_k |g_k|: g / s everywhere, as in caffe-spn; or only where s is above 1."""
_LEAST_SUM = 1e-6
_BLOCK = 32
"""Steps of a scan that are laid out in memory at once; they fit into a processor's cache."""


def normalise_gates(gates: Tensor, how: Normalisation = "always") -> Tensor:
    """Scale gates so that their absolute values sum to 1 at most: then the recurrence is stable.

    Args:
        gates: any finite values, [N, 4, ways, C, H, W].
        how: see `Normalisation`.

    Returns:
        The scaled gates, of the same shape.
    """
    total = gates.abs().sum(2, keepdim=True)
    return gates / total.clamp(min=_LEAST_SUM if how == "always" else 1.0)


def propagate(x: Tensor, gates: Tensor) -> Tensor:
    """Scan a map in each of the four directions.

    Args:
        x: [N, C, H, W].
        gates: normalised, [N, 4, ways, C, H, W]; ways is 1 or 3, in the order k = -1, 0, 1, where -1 is the upper or
            left neighbour. The directions are those of `DIRECTIONS`.

    Returns:
        [4, N, C, H, W], in the dtype of x; computed with at least 32 bits.

    Raises:
        ValueError: the shapes do not fit each other.
    """
    number, channels, height, width = x.shape
    ways = gates.shape[2]
    if ways not in (1, 3) or gates.shape != (number, 4, ways, channels, height, width):
        raise ValueError(
            f"gates {list(gates.shape)} do not fit a map {list(x.shape)}; they are [N, 4, 1 or 3, C, H, W]"
        )
    dtype = torch.promote_types(torch.promote_types(x.dtype, gates.dtype), torch.float32)
    result: Tensor = _Scans.apply(x.to(dtype), gates.to(dtype).permute(1, 2, 0, 3, 4, 5))
    return result.to(x.dtype)


class _Scans(torch.autograd.Function):
    """All four scans: x [N, C, H, W] and gates [4, ways, N, C, H, W] -> [4, N, C, H, W]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gates: Tensor) -> Tensor:
        kernels = _kernels(x)
        h: Tensor = _scans(x, gates) if kernels is None else kernels.scans(x, gates)
        ctx.save_for_backward(x, gates, h)
        return h

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator, unused-ignore]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, gates, h = ctx.saved_tensors
        if (kernels := _kernels(x)) is not None:
            gradients: tuple[Tensor, Tensor] = kernels.scan_gradients(x, gates, h, grad)
            return gradients
        to_x, to_gates = torch.zeros_like(h), torch.empty_like(gates)
        _scan_gradients(x, gates[:2], h[:2], grad[:2], to_x[:2], to_gates[:2])
        _scan_gradients(*(part.mT for part in (x, gates[2:], h[2:], grad[2:], to_x[2:], to_gates[2:])))
        return to_x.sum(0), to_gates


def _kernels(x: Tensor) -> ModuleType | None:
    """The Triton kernels if they can run: on a GPU, with Triton installed. Otherwise a loop over columns scans."""
    if not x.is_cuda or find_spec("triton") is None:
        return None
    from spn_instances import spn_triton

    return spn_triton


def _scans(x: Tensor, gates: Tensor) -> Tensor:
    h = x.new_empty(4, *x.shape)
    _scan(x, gates[:2], h[:2])
    _scan(x.mT, gates[2:].mT, h[2:].mT)
    return h


def _scan(x: Tensor, gates: Tensor, h: Tensor) -> None:
    """Scan over the last axis, forward and backward at once.

    Args:
        x: [N, C, L, T].
        gates: [2, ways, N, C, L, T]; first those of the forward scan.
        h: [2, N, C, L, T]; the result is written to it.
    """
    buffers = _Buffers(x, gates)
    padded = _bordered(x)
    now, before = padded[1:, ..., 1:-1].unbind(), _neighbours(padded[:-1], gates.shape[1])
    for start, length in _blocks(x.shape[-1]):
        block, kept = buffers.read(start, length)
        torch.mul(kept, block, out=padded[1 : length + 1, ..., 1:-1])
        for step in range(length):
            for gate, value in zip(buffers.by_step[step], before, strict=True):
                now[step].addcmul_(gate, value[step])
        _write(h, padded[1 : length + 1, ..., 1:-1], start)
        padded[0] = padded[length]


def _scan_gradients(x: Tensor, gates: Tensor, h: Tensor, grad: Tensor, to_x: Tensor, to_gates: Tensor) -> None:
    """Gradients of `_scan`: writes to_x [2, N, C, L, T] and to_gates [2, ways, N, C, L, T], from the gradient of h.

    Pixel i of step t reads pixel i + k of step t - 1, so its error, times the gate, flows back there.
    """
    buffers = _Buffers(x, gates)
    errors, before = _bordered(x), _bordered(x)
    now, earlier = errors[1:, ..., 1:-1].unbind(), _neighbours(errors[:-1], gates.shape[1])
    for start, length in reversed(_blocks(x.shape[-1])):
        block, kept = buffers.read(start, length)
        errors[length] = errors[0]  # From the first step of the later block to the last one of this block.
        errors[:length] = 0
        now_block = errors[1 : length + 1, ..., 1:-1]
        now_block += _read(torch.empty_like(block), grad, start)
        for step in reversed(range(length)):
            for gate, target in zip(buffers.by_step[step], earlier, strict=True):
                target[step].addcmul_(gate, now[step])
        _write(to_x, kept * now_block, start)
        before[0] = 0
        first = int(start == 0)
        _read(before[first:length, ..., 1:-1], h, start - 1 + first)
        neighbours = torch.stack([torch.stack(part[:length]) for part in _neighbours(before[:-1], gates.shape[1])], 2)
        slopes = now_block[:, :, None] * (neighbours - block[:, :, None])
        _write(to_gates, slopes * _reachable(torch.ones_like(slopes), first=start == 0), start)


class _Buffers:
    """x and gates of a block of steps, contiguous in memory, in the order of the scan."""

    def __init__(self, x: Tensor, gates: Tensor) -> None:
        number, channels, lines, steps = x.shape
        size = min(_BLOCK, steps)
        self._sources = x.expand(2, *x.shape), gates
        self._x = x.new_empty(size, 2, number, channels, lines)
        self._gates = x.new_empty(size, 2, gates.shape[1], number, channels, lines)
        self.by_step = [step.unbind(1) for step in self._gates.unbind()]

    def read(self, start: int, length: int) -> tuple[Tensor, Tensor]:
        """Read steps from `start` on: x, and the share of it that stays in h, both [length, 2, N, C, L]."""
        x, gates = self._sources
        block = _reachable(_read(self._gates[:length], gates, start), first=start == 0)
        return _read(self._x[:length], x, start), 1 - block.sum(2)


def _blocks(steps: int) -> list[tuple[int, int]]:
    """Start and length of each block of a scan."""
    return [(start, min(_BLOCK, steps - start)) for start in range(0, steps, _BLOCK)]


def _bordered(x: Tensor) -> Tensor:
    """Zeros for the steps of a block and the step before it, with one more pixel at both ends of each line."""
    number, channels, lines, steps = x.shape
    return x.new_zeros(min(_BLOCK, steps) + 1, 2, number, channels, lines + 2)


def _neighbours(padded: Tensor, ways: int) -> list[tuple[Tensor, ...]]:
    """For each k and each step a view of padded [T, 2, N, C, L + 2] that holds at i the pixel i + k."""
    length = padded.shape[-1] - 2
    return [padded[..., 1 + k : 1 + k + length].unbind() for k in range(-(ways // 2), ways // 2 + 1)]


def _reachable(gates: Tensor, *, first: bool) -> Tensor:
    """Set gates [T, 2, ways, N, C, L] to 0 where their neighbour lies outside the map; `first`: at the map's edge."""
    if first:
        gates[0] = 0
    if gates.shape[2] == 3:
        gates[:, :, 0, ..., 0] = 0
        gates[:, :, 2, ..., -1] = 0
    return gates


def _read(block: Tensor, values: Tensor, start: int) -> Tensor:
    """Fill block [n, 2, ...] with n steps from `start` on of values [2, ..., T]; the second scan begins at the end."""
    begin, end = values.shape[-1] - start - len(block), values.shape[-1] - start
    block[:, 0] = values[0, ..., start : start + len(block)].movedim(-1, 0)
    block[:, 1] = values[1, ..., begin:end].movedim(-1, 0).flip(0)
    return block


def _write(values: Tensor, block: Tensor, start: int) -> None:
    """Undo `_read`."""
    begin, end = values.shape[-1] - start - len(block), values.shape[-1] - start
    values[0, ..., start : start + len(block)] = block[:, 0].movedim(0, -1)
    values[1, ..., begin:end] = block[:, 1].flip(0).movedim(0, -1)


class SpatialPropagation(nn.Module):
    """Propagate a map along gates: four scans and their maximum, once or several times.

    It works and is differentiable for maps of any size and for any finite gates, on the CPU and on CUDA; it has no
    weights.

    Args:
        normalisation: of the gates; weights of caffe-spn need "always".
        rounds: how many times the map is scanned, with the same gates; the public networks scan it twice.
    """

    def __init__(self, normalisation: Normalisation = "always", rounds: int = 1) -> None:
        super().__init__()
        self.normalisation: Normalisation = normalisation
        self.rounds = rounds

    def forward(self, x: Tensor, gates: Tensor) -> Tensor:
        """Propagate.

        Args:
            x: [N, C, H, W].
            gates: [N, 4 * ways * C, H, W], with ways 1 or 3: for each direction, for each neighbour, all channels, as
                caffe-spn's ``guide_conv2`` orders them; or [N, 4, ways, C, H, W]. With N = 1 they serve all maps.

        Returns:
            [N, C, H, W].
        """
        number, channels, height, width = x.shape
        if gates.ndim == 4:
            gates = gates.reshape(len(gates), 4, -1, channels, height, width)
        gates = normalise_gates(gates, self.normalisation).expand(number, -1, -1, -1, -1, -1)
        for _ in range(self.rounds):
            x = propagate(x, gates).amax(0)
        return x
