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
_TILE: Final = 4
_INPUTS: Final = range(-1, _TILE + 1)
_OUTPUTS: Final = range(_TILE)
"""Cells that a tile needs and gives, along each axis."""
_PRODUCTS: Final = len(_INPUTS) ** 2
_EVERYWHERE: Final = len(_INPUTS) + 1
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


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # Else it could not be used outside of inference mode.
def _pixels(shape: tuple[int, int, int], dilation: int, taps: range) -> Tensor:
    """Index of the pixel at each place of each tile, -1 outside of the map: int64 [B tiles, len(taps)^2]."""
    batch, height, width = shape
    offsets = dilation * torch.tensor(taps)
    rows, columns = (_firsts(size, dilation)[:, None] + offsets for size in (height, width))
    rows, columns = rows[:, None, :, None], columns[:, None, :]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    pixels = (rows * width + columns).flatten(2).flatten(0, 1)  # [tiles, places]
    pixels = pixels + height * width * torch.arange(batch)[:, None, None]
    return torch.where(inside.flatten(2).flatten(0, 1), pixels, -1).flatten(0, 1)


def _firsts(size: int, dilation: int) -> Tensor:
    """The first cells of the tiles of one axis."""
    cells = torch.arange(size)
    return cells[cells // dilation % _TILE == 0]


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


def _gather(rows: Tensor, pixels: Tensor, matrix: Tensor, out: Tensor) -> None:
    """Cut a map, [pixels, C], into tiles, zero outside, and transform them to `out`, [tiles, n, C]."""
    strip = _tiles_of(_STRIP, rows.shape[1])
    for part, target in zip(pixels.split(strip), out.split(strip), strict=True):
        flat = part.flatten()
        tiles = _SCRATCH.take("strip", (*part.shape, rows.shape[1]), rows)
        found = torch.index_select(rows, 0, flat.clamp_min(0), out=tiles.flatten(0, 1))
        found.index_fill_(0, (flat < 0).nonzero()[:, 0], 0)
        _transformed(matrix, tiles, target)


def _scatter(products: Tensor, matrix: Tensor, pixels: Tensor, write: Callable[[Tensor, Tensor], object]) -> None:
    """Transform what was computed for tiles, [n, tiles, C], and write it: pixels and their values, [pixels, C]."""
    strip, channels = _tiles_of(_STRIP, products.shape[2]), products.shape[2]
    for part, where in zip(products.split(strip, 1), pixels.split(strip), strict=True):
        values = _SCRATCH.take("strip", (*where.shape, channels), products)
        write(where.flatten(), _transformed(matrix, part.transpose(0, 1), values).flatten(0, 1))


def _tiles_of(limit: int, channels: int) -> int:
    """How many tiles of so many channels are within a limit."""
    return max(limit // channels, 1)


def _rows(maps: Tensor) -> Tensor:
    """Maps [B, C, h, w] as [B h w, C]; a view where they are channels-last."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def transformed_kernels(weight: Tensor) -> Tensor:
    """Kernels [C', C, 3, 3] as `convolve` takes them, [36, C', C]."""
    taps = weight.permute(2, 3, 0, 1).reshape(9, -1)
    return torch.mm(_both_axes(_G, weight.dtype), taps).view(_PRODUCTS, *weight.shape[:2])


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
    batch, _, height, width = maps.shape
    rows, found = _rows(maps), _outputs(maps, kernels)
    for pixels_in, pixels_out in _rounds((batch, height, width), dilation, max(kernels.shape[1:])):
        tiles = _SCRATCH.take("tiles", (len(pixels_in), _PRODUCTS, rows.shape[1]), rows)
        _gather(rows, pixels_in, _both_axes(_B, maps.dtype), tiles)
        _multiply(tiles, kernels, bias, pixels_out, found)
    return _maps(found, (batch, height, width))


def _outputs(maps: Tensor, kernels: Tensor) -> Tensor:
    """Memory for the pixels of the outputs, and one more row for what is outside of them: [B h w + 1, C']."""
    return maps.new_empty(maps[:, 0].numel() + 1, kernels.shape[1])


def _multiply(tiles: Tensor, kernels: Tensor, bias: Tensor | None, pixels: Tensor, found: Tensor) -> None:
    """Multiply transformed tiles, [tiles, 36, C], with transformed kernels, and write the outputs to `found`."""
    products = _SCRATCH.take("products", (_PRODUCTS, len(tiles), kernels.shape[1]), tiles)
    torch.bmm(tiles.transpose(0, 1), kernels.transpose(1, 2), out=products)
    if bias is not None:
        products[_EVERYWHERE] += bias
    _scatter(products, _both_axes(_A, tiles.dtype), _or_last(pixels, found), partial(found.index_copy_, 0))


def _maps(found: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """The opposite of `_rows`, without the last row of `found`."""
    return found[:-1].view(*shape, -1).permute(0, 3, 1, 2)


def _rounds(shape: tuple[int, int, int], dilation: int, channels: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and outputs of the tiles, `_ROUND` at a time."""
    count = _tiles_of(_ROUND, channels)
    inputs, outputs = (_pixels(shape, dilation, taps).split(count) for taps in (_INPUTS, _OUTPUTS))
    return zip(inputs, outputs, strict=True)


def _or_last(pixels: Tensor, rows: Tensor) -> Tensor:
    """Pixels to write to: what is outside of the map goes to the last row."""
    return pixels.where(pixels >= 0, len(rows) - 1)


def trained_convolve(maps: Tensor, weight: Tensor, dilation: int = 1, bias: Tensor | None = None) -> Tensor:
    """`convolve` with gradients of the maps, the kernels [C', C, 3, 3] and the bias."""
    found: Tensor = _Trained.apply(maps, weight, dilation, bias)
    return found


class _Trained(torch.autograd.Function):
    """Keeps transformed tiles and kernels for the gradients: 2.25 times the memory of maps, 4 times that of kernels."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, dilation: int, bias: Tensor | None) -> Tensor:
        batch, channels, height, width = maps.shape
        ctx.shape, ctx.dilation = (batch, height, width), dilation
        pixels_in, pixels_out = (_pixels(ctx.shape, dilation, taps) for taps in (_INPUTS, _OUTPUTS))
        tiles, kernels = maps.new_empty(len(pixels_in), _PRODUCTS, channels), transformed_kernels(weight)
        _gather(_rows(maps), pixels_in, _both_axes(_B, maps.dtype), tiles)
        ctx.save_for_backward(tiles, kernels)
        found = _outputs(maps, kernels)
        _multiply(tiles, kernels, bias, pixels_out, found)
        view = _maps(found, ctx.shape)
        # As a tensor of its own rather than a view, so that an activation behind the layer may overwrite it.
        return view.new_empty(0).set_(view.untyped_storage(), 0, view.shape, view.stride())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, Tensor | None]:
        """What `forward` does, transposed and in the opposite order."""
        tiles, kernels = ctx.saved_tensors
        own = _rows(gradients[0])
        pixels_in, pixels_out = (_pixels(ctx.shape, ctx.dilation, taps) for taps in (_INPUTS, _OUTPUTS))
        of_products = _SCRATCH.take("products", (len(tiles), _PRODUCTS, own.shape[1]), own)
        _gather(own, pixels_out, _both_axes(_A, own.dtype).T, of_products)
        of_tiles = _SCRATCH.take("tiles", (_PRODUCTS, len(tiles), tiles.shape[2]), own)
        torch.bmm(of_products.transpose(0, 1), kernels, out=of_tiles)
        of_rows = own.new_zeros(len(own) + 1, tiles.shape[2])
        before = _both_axes(_B, own.dtype).T
        _scatter(of_tiles, before, _or_last(pixels_in, of_rows), partial(of_rows.index_add_, 0))
        of_bias = own.sum(0) if ctx.needs_input_grad[3] else None
        return _maps(of_rows, ctx.shape), _of_weight(tiles, of_products), None, of_bias


def _of_weight(tiles: Tensor, of_products: Tensor) -> Tensor:
    """Gradient of kernels, [C', C, 3, 3], from transformed inputs and gradients: [tiles, 36, C] and [tiles, 36, C']."""
    of_kernels = torch.bmm(of_products.permute(1, 2, 0), tiles.transpose(0, 1))
    of_taps = torch.mm(_both_axes(_G, tiles.dtype).T, of_kernels.flatten(1))
    return of_taps.view(3, 3, *of_kernels.shape[1:]).permute(2, 3, 0, 1)


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
