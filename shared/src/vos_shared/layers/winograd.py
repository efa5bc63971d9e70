"""3x3 convolutions with a quarter of the multiplications, for processors.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016: F(4x4, 3x3), section 4.3. The map is cut
into tiles of 4x4 outputs, which need 6x6 inputs. Inputs and kernels are transformed (B and G), multiplied as 36 matrix
products over channels, and transformed back (A). A dilated convolution is an ordinary one between the cells that lie
`dilation` apart, so its tiles take every `dilation`-th cell.
"""

from __future__ import annotations

import math
import threading
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeGuard

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterator

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
_EVERYWHERE: Final = 6 + 1
"""The one of the 36 products that A adds to all outputs of a tile with factor 1."""
_CHANNELS: Final = 512
_TILES: Final = 112
"""Input channels and tiles of one round of products, which bound the memory; larger rounds are no faster (measured)."""
_TRAINED_TILES: Final = 512
"""The same tiles for gradients, where each round also adds to the gradients of all kernels."""
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
    """Index of the pixel at each place of each tile, -1 outside of the map: int64 [len(taps)^2, B tiles]."""
    batch, height, width = shape
    offsets = dilation * torch.tensor(taps)[:, None]
    rows, columns = (_firsts(size, dilation) + offsets for size in (height, width))
    rows, columns = rows[:, None, :, None], columns[:, None, :]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    pixels = (rows * width + columns).flatten(0, 1).flatten(1)[:, None]  # [places, 1, tiles]
    pixels = pixels + height * width * torch.arange(batch)[:, None]
    return torch.where(inside.flatten(0, 1).flatten(1)[:, None], pixels, -1).flatten(1)


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


def _tiles(rows: Tensor, pixels: Tensor) -> Tensor:
    """The tiles of a map: [pixels of the map, C] to [places, tiles, C], zero outside."""
    flat = pixels.flatten()
    found = _SCRATCH.take("tiles", (len(flat), rows.shape[1]), rows)
    torch.index_select(rows, 0, flat.clamp_min(0), out=found)
    return found.index_fill_(0, (flat < 0).nonzero()[:, 0], 0).view(*pixels.shape, -1)


def _transformed(matrix: Tensor, tiles: Tensor, out: Tensor | None = None) -> Tensor:
    """Apply a transform, [n, m], to all tiles: [m, tiles, C] to [n, tiles, C]."""
    return torch.mm(matrix, tiles.flatten(1), out=out).view(len(matrix), *tiles.shape[1:])


def _rows(maps: Tensor) -> Tensor:
    """Maps [B, C, h, w] as [B h w, C]; a view where they are channels-last."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def transformed_kernels(weight: Tensor, out: Tensor | None = None) -> Tensor:
    """Kernels [C', C, 3, 3] as `convolve` takes them, [36, C', C]."""
    return _transformed(_both_axes(_G, weight.dtype), weight.permute(2, 3, 0, 1).flatten(0, 1), out)


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
    shape, channels = (batch, height, width), kernels.shape[1]
    inputs, outputs = _pixels(shape, dilation, _INPUTS), _pixels(shape, dilation, _OUTPUTS)
    rows, after = _rows(maps), _both_axes(_A, maps.dtype)
    pixels = len(rows)
    found = rows.new_empty(pixels + 1, channels)  # What is computed outside the map goes to the last row.
    outputs = outputs.where(outputs >= 0, pixels)
    for pixels_in, pixels_out in _rounds(inputs, outputs, _TILES, rows):
        products = _products(rows, pixels_in, kernels)
        if bias is not None:
            products[_EVERYWHERE] += bias
        space = _SCRATCH.take("tiles", (len(after), products[0].numel()), rows)
        found.index_copy_(0, pixels_out.flatten(), _transformed(after, products, space).flatten(0, 1))
    return found[:-1].view(*shape, channels).permute(0, 3, 1, 2)


def _rounds(inputs: Tensor, outputs: Tensor, tiles: int, rows: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Parts of the tiles; more in each where maps have few channels."""
    tiles = tiles * _CHANNELS // min(rows.shape[1], _CHANNELS)
    return zip(inputs.split(tiles, 1), outputs.split(tiles, 1), strict=True)


def _products(rows: Tensor, pixels: Tensor, kernels: Tensor) -> Tensor:
    """Transformed tiles times kernels, summed over the channels: [36, tiles, C']."""
    before = _both_axes(_B, rows.dtype)
    count = pixels.shape[1]
    products = _SCRATCH.take("products", (len(before), count, kernels.shape[1]), rows)
    for index, (part, own) in enumerate(zip(rows.split(_CHANNELS, 1), kernels.split(_CHANNELS, 2), strict=True)):
        space = _SCRATCH.take("transformed", (len(before), count * part.shape[1]), rows)
        tiles = _transformed(before, _tiles(part, pixels), space)
        torch.baddbmm(products, tiles, own.transpose(1, 2), beta=min(index, 1), out=products)
    return products


def trained_convolve(maps: Tensor, weight: Tensor, dilation: int = 1, bias: Tensor | None = None) -> Tensor:
    """`convolve` with gradients of the maps, the kernels [C', C, 3, 3] and the bias."""
    found: Tensor = _Trained.apply(maps, weight, dilation, bias)
    return found


class _Trained(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, dilation: int, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(maps, weight)
        ctx.dilation = dilation
        found = convolve(maps, _scratch_kernels(weight), dilation, bias)
        # As a tensor of its own rather than a view, so that an activation behind the layer may overwrite it.
        return found.new_empty(0).set_(found.untyped_storage(), 0, found.shape, found.stride())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, Tensor | None]:
        maps, weight = ctx.saved_tensors
        of_bias = gradients[0].sum((0, 2, 3)) if ctx.needs_input_grad[3] else None
        return *_gradients(maps, weight, gradients[0], ctx.dilation), None, of_bias


def _scratch_kernels(weight: Tensor) -> Tensor:
    return transformed_kernels(weight, _SCRATCH.take("kernels", (36, weight[..., 0, 0].numel()), weight))


def _gradients(maps: Tensor, weight: Tensor, of_outputs: Tensor, dilation: int) -> tuple[Tensor, Tensor]:
    """Gradients of maps and kernels: what `convolve` does, transposed and in the opposite order."""
    batch, channels, height, width = maps.shape
    shape = batch, height, width
    inputs, outputs = _pixels(shape, dilation, _INPUTS), _pixels(shape, dilation, _OUTPUTS)
    before, after = _both_axes(_B, maps.dtype), _both_axes(_A, maps.dtype)
    rows, own, kernels = _rows(maps), _rows(of_outputs), _scratch_kernels(weight)
    # What is outside the map goes to the last row.
    of_rows = [rows.new_zeros(len(rows) + 1, part.shape[1]) for part in rows[:1].split(_CHANNELS, 1)]
    of_kernels = _SCRATCH.take("kernel gradients", kernels.shape, kernels)
    for index, (pixels_in, pixels_out) in enumerate(_rounds(inputs, outputs, _TRAINED_TILES, rows)):
        targets = pixels_in.where(pixels_in >= 0, len(rows)).flatten()
        space = _SCRATCH.take("product gradients", (36, pixels_in.shape[1] * len(weight)), rows)
        of_products = _transformed(after.T, _tiles(own, pixels_out), space)  # [36, tiles, C']
        parts = (whole.split(_CHANNELS, -1) for whole in (rows, kernels, of_kernels))
        for of_part, part, own_kernels, of_own in zip(of_rows, *parts, strict=True):
            gathered = _tiles(part, pixels_in)
            space = _SCRATCH.take("transformed", (36, gathered[0].numel()), rows)
            tiles = _transformed(before, gathered, space)  # [36, tiles, C]
            torch.baddbmm(of_own, of_products.transpose(1, 2), tiles, beta=min(index, 1), out=of_own)
            torch.bmm(of_products, own_kernels, out=tiles)
            of_tiles = _transformed(before.T, tiles, gathered.flatten(1))
            of_part.index_add_(0, targets, of_tiles.flatten(0, 1))
    of_all = torch.cat(of_rows, 1) if len(of_rows) > 1 else of_rows[0]
    of_maps = of_all[:-1].view(*shape, channels).permute(0, 3, 1, 2)
    of_weight = _transformed(_both_axes(_G, weight.dtype).T, of_kernels).view(3, 3, *weight.shape[:2])
    return of_maps, of_weight.permute(2, 3, 0, 1)


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
