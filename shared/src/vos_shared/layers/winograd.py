"""3x3 convolutions with a quarter of the multiplications, for processors.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016: F(4x4, 3x3), section 4.3. The map is cut
into tiles of 4x4 outputs, which need 6x6 inputs. Inputs and kernels are transformed (B and G), multiplied as 36 matrix
products over channels, and transformed back (A). A dilated convolution is an ordinary one between the cells that lie
`dilation` apart, so its tiles take every `dilation`-th cell.
"""

from __future__ import annotations

import math
import threading
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final, TypeGuard

import torch
from torch import Tensor, nn

from vos_shared.layers.products import multiply, multiply_transposed
from vos_shared.layers.tiles import INPUTS, OUTPUTS, Grid, Strip, strips_of, tile_count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# The matrices of the paper's equation for F(4x4, 3x3): B^T, G and A^T.
_B: Final = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_G: Final = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
_A: Final = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))
_PRODUCTS: Final = len(INPUTS) ** 2
_EVERYWHERE: Final = len(INPUTS) + 1
"""The one of the products that A adds to all outputs of a tile with factor 1."""
_ROUND: Final = 2**18
"""Tiles times channels of one round of products, which bound the memory; larger rounds are no faster (measured)."""
_STRIP: Final = 2**15
"""Tiles times channels that are transformed at once, so that the processor's cache keeps them (measured)."""
LEAST_CHANNELS: Final = 128
"""Fewest input and output channels for which it is faster than PyTorch's convolution (measured)."""


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _both_axes(matrix: tuple[tuple[float, ...], ...], dtype: torch.dtype) -> Tensor:
    """The transform of rows and columns as one matrix, for flattened tiles."""
    one = torch.tensor(matrix, dtype=torch.float64)
    return torch.kron(one, one).to(dtype)


class _Scratch(threading.local):
    """Memory for tiles that is kept from layer to layer: the system clears fresh memory first, which takes longer."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, torch.dtype, torch.device], Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Return an array of some values; the next one of this name may overwrite it."""
        key, count = (name, like.dtype, like.device), math.prod(shape)
        if key not in self._kept or len(self._kept[key]) < count:
            with torch.inference_mode(False):  # Else it could not be used outside of inference mode.
                self._kept[key] = torch.empty(count, dtype=like.dtype, device=like.device)
        return self._kept[key][:count].view(shape)


_SCRATCH: Final = _Scratch()


def _transformed(matrix: Tensor, tiles: Tensor, out: Tensor) -> Tensor:
    """Apply a transform, [n, m], to each tile: [tiles, m, C] to `out`, [tiles, n, C]."""
    return torch.bmm(matrix.expand(len(tiles), *matrix.shape), tiles, out=out)


def _gather(rows: Tensor, strips: list[Strip], matrix: Tensor, out: Tensor) -> None:
    """Cut a map, [pixels, C], into tiles, zero outside, and transform them to `out`, [tiles, n, C]."""
    for strip in strips:
        target = out[strip.tiles]
        tiles = _SCRATCH.take("strip", (len(target), matrix.shape[1], rows.shape[1]), rows)
        torch.index_select(rows, 0, strip.pixels, out=tiles.flatten(0, 1)).index_fill_(0, strip.outside, 0)
        _transformed(matrix, tiles, target)


def _scatter(products: Tensor, matrix: Tensor, strips: list[Strip], write: Callable[[Tensor, Tensor], object]) -> None:
    """Transform what was computed for tiles, [tiles, n, C], and write it: pixels and their values, [pixels, C]."""
    for strip in strips:
        part = products[strip.tiles]
        values = _SCRATCH.take("strip", (len(part), len(matrix), products.shape[2]), products)
        write(strip.targets, _transformed(matrix, part, values).flatten(0, 1))


def _tiles_of(limit: int, channels: int) -> int:
    """How many tiles of so many channels are within a limit."""
    return max(limit // channels, 1)


def _rows(maps: Tensor) -> Tensor:
    """Maps [B, C, h, w] as [B h w, C]; a view where they are channels-last."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def transformed_kernels(weight: Tensor) -> Tensor:
    """Kernels [C', C, 3, 3] as `convolve` takes them, [36, C', C]."""
    taps = weight.permute(0, 2, 3, 1).flatten(1, 2)  # [C', 9, C]
    kernels = taps.new_empty(len(taps), _PRODUCTS, taps.shape[2])  # One at a time, as the cache keeps that.
    return _transformed(_both_axes(_G, taps.dtype), taps, kernels).transpose(0, 1).contiguous()


def convolve(maps: Tensor, kernels: Tensor, dilation: int = 1, bias: Tensor | None = None) -> Tensor:
    """3x3 convolution of stride 1 that keeps the size: its zero padding is its dilation.

    In float32 its largest error is about 1e-5 of the largest output. No gradients.

    Args:
        maps: float [B, C, h, w], fastest where they are channels-last.
        kernels: of `transformed_kernels`.
        dilation: of the kernel.
        bias: of the outputs, [C'].

    Returns:
        [B, C', h, w], channels-last.
    """
    grid, rows, found = _grid(maps, dilation), _rows(maps), _outputs(maps, kernels)
    for tiles in _rounds(grid, max(kernels.shape[1:])):
        inputs = _SCRATCH.take("inputs", (len(tiles), _PRODUCTS, rows.shape[1]), rows)
        _gather(rows, _strips(grid, INPUTS, tiles, rows), _both_axes(_B, maps.dtype), inputs)
        products = _SCRATCH.take("products", (_PRODUCTS, len(tiles), kernels.shape[1]), rows)
        torch.bmm(inputs.transpose(0, 1), kernels.transpose(1, 2), out=products)
        _write(products.transpose(0, 1), bias, _strips(grid, OUTPUTS, tiles, found), found)
    return _maps(found, grid)


def _grid(maps: Tensor, dilation: int) -> Grid:
    return Grid(len(maps), maps.shape[2], maps.shape[3], dilation)


def _rounds(grid: Grid, channels: int) -> Iterator[range]:
    """All tiles, `_ROUND` at a time."""
    count, step = tile_count(grid), _tiles_of(_ROUND, channels)
    return (range(first, min(first + step, count)) for first in range(0, count, step))


def _strips(grid: Grid, taps: range, tiles: range, rows: Tensor) -> list[Strip]:
    """Strips of tiles of [pixels, C] that the processor's cache keeps."""
    return strips_of(grid, taps, tiles, _tiles_of(_STRIP, rows.shape[1]))


def _outputs(maps: Tensor, kernels: Tensor) -> Tensor:
    """Memory for the pixels of the outputs, and one more row for what is outside of them: [B h w + 1, C']."""
    return maps.new_empty(maps[:, 0].numel() + 1, kernels.shape[1])


def _write(products: Tensor, bias: Tensor | None, strips: list[Strip], found: Tensor) -> None:
    """Write the outputs of products, [tiles, 36, C'], to `found`."""
    if bias is not None:
        products[:, _EVERYWHERE] += bias
    _scatter(products, _both_axes(_A, products.dtype), strips, partial(found.index_copy_, 0))


def _maps(found: Tensor, grid: Grid) -> Tensor:
    """The opposite of `_rows`, without the last row of `found`."""
    return found[:-1].view(grid.batch, grid.height, grid.width, -1).permute(0, 3, 1, 2)


def trained_convolve(maps: Tensor, weight: Tensor, dilation: int = 1, bias: Tensor | None = None) -> Tensor:
    """`convolve` with gradients of the maps, the kernels [C', C, 3, 3] and the bias."""
    found: Tensor = _Trained.apply(maps, weight, dilation, bias)
    return found


class _Trained(torch.autograd.Function):
    """Keeps transformed tiles and kernels for the gradients: 2.25 times the memory of maps, 4 times that of kernels."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, dilation: int, bias: Tensor | None) -> Tensor:
        grid = ctx.grid = _grid(maps, dilation)
        every, rows, kernels = range(tile_count(grid)), _rows(maps), transformed_kernels(weight)
        tiles, found = rows.new_empty(len(every), _PRODUCTS, rows.shape[1]), _outputs(maps, kernels)
        _gather(rows, _strips(grid, INPUTS, every, rows), _both_axes(_B, rows.dtype), tiles)
        ctx.save_for_backward(tiles, kernels)
        _write(multiply(tiles, kernels), bias, _strips(grid, OUTPUTS, every, found), found)
        view = _maps(found, grid)
        # As a tensor of its own rather than a view, so that an activation behind the layer may overwrite it.
        return view.new_empty(0).set_(view.untyped_storage(), 0, view.shape, view.stride())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, Tensor | None]:
        """What `forward` does, transposed and in the opposite order."""
        tiles, kernels = ctx.saved_tensors
        every, own = range(len(tiles)), _rows(gradients[0])
        of_products = _SCRATCH.take("products", (len(tiles), _PRODUCTS, own.shape[1]), own)
        _gather(own, _strips(ctx.grid, OUTPUTS, every, own), _both_axes(_A, own.dtype).T, of_products)
        of_rows = own.new_zeros(len(own) + 1, tiles.shape[2])
        places = _strips(ctx.grid, INPUTS, every, of_rows)
        of_tiles = multiply_transposed(of_products, kernels)
        _scatter(of_tiles, _both_axes(_B, own.dtype).T, places, partial(of_rows.index_add_, 0))
        of_bias = own.sum(0) if ctx.needs_input_grad[3] else None
        return _maps(of_rows, ctx.grid), _of_weight(tiles, of_products), None, of_bias


def _of_weight(tiles: Tensor, of_products: Tensor) -> Tensor:
    """Gradient of kernels, [C', C, 3, 3], from transformed inputs and gradients: [tiles, 36, C] and [tiles, 36, C']."""
    of_kernels = torch.bmm(of_products.permute(1, 2, 0), tiles.transpose(0, 1))
    of_taps = tiles.new_empty(of_kernels.shape[1], 9, of_kernels.shape[2])
    _transformed(_both_axes(_G, tiles.dtype).T, of_kernels.transpose(0, 1), of_taps)
    return of_taps.view(-1, 3, 3, of_taps.shape[2]).permute(0, 3, 1, 2)


class WinogradConvolution(nn.Module):
    """A frozen convolution of the kind that `convolve` computes; its kernels are transformed once.

    Args:
        convolution: 3x3, of stride 1, one group and zero padding equal to its dilation; its weights are copied.
    """

    kernels: Tensor
    bias: Tensor | None

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.dilation = convolution.dilation[0]
        self.register_buffer("kernels", transformed_kernels(convolution.weight.detach()))
        self.register_buffer("bias", None if convolution.bias is None else convolution.bias.detach().clone())

    def forward(self, maps: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, C', h, w]."""
        return convolve(maps, self.kernels, self.dilation, self.bias)


def has_tiles(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether a layer is a convolution of the kind that `convolve` computes."""
    return (
        isinstance(layer, nn.Conv2d)
        and (layer.kernel_size, layer.stride, layer.groups, layer.padding_mode) == ((3, 3), (1, 1), 1, "zeros")
        and layer.padding == layer.dilation == (layer.dilation[0],) * 2
    )


def use_winograd(network: nn.Module) -> None:
    """Replace all wide convolutions of a network that `has_tiles` finds by `WinogradConvolution`, in place."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if has_tiles(child) and min(child.in_channels, child.out_channels) >= LEAST_CHANNELS:
                setattr(module, name, WinogradConvolution(child))
