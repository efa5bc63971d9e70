"""3x3 convolutions with a quarter of the multiplications, for processors.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016: F(4x4, 3x3), section 4.3. The map is cut
into tiles of 4x4 outputs, which need 6x6 inputs. Inputs and kernels are transformed (B and G), multiplied as 36 matrix
products over channels, and transformed back (A). A dilated convolution is an ordinary one between the cells that lie
`dilation` apart, so its tiles take every `dilation`-th cell.
"""

from __future__ import annotations

import math
import threading
from typing import Final, TypeGuard

import torch
from torch import Tensor, nn

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
_EVERYWHERE: Final = 6 + 1
"""The one of the 36 products that A adds to all outputs of a tile with factor 1."""
_CHANNELS: Final = 512
_TILES: Final = 112
"""Input channels and tiles of one round of products, which bound the memory; larger rounds are no faster (measured)."""
LEAST_CHANNELS: Final = 128
"""Fewest input and output channels for which it is faster than PyTorch's convolution (measured)."""


def _both_axes(matrix: tuple[tuple[float, ...], ...], like: Tensor) -> Tensor:
    """The transform of rows and columns as one matrix, for flattened tiles."""
    one = torch.tensor(matrix, dtype=torch.float64)
    return torch.kron(one, one).to(like.dtype)


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


def transformed_kernels(weight: Tensor) -> Tensor:
    """Kernels [C', C, 3, 3] as `convolve` takes them, [36, C, C']."""
    return _transformed(_both_axes(_G, weight), weight.permute(2, 3, 1, 0).flatten(0, 1))


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
    shape, channels = (batch, height, width), kernels.shape[2]
    inputs, outputs = _pixels(shape, dilation, range(-1, _TILE + 1)), _pixels(shape, dilation, range(_TILE))
    rows, after = _rows(maps), _both_axes(_A, maps)
    pixels = len(rows)
    found = rows.new_empty(pixels + 1, channels)  # What is computed outside the map goes to the last row.
    outputs = outputs.where(outputs >= 0, pixels)
    for pixels_in, pixels_out in zip(inputs.split(_TILES, 1), outputs.split(_TILES, 1), strict=True):
        products = _products(rows, pixels_in, kernels)
        if bias is not None:
            products[_EVERYWHERE] += bias
        space = _SCRATCH.take("tiles", (len(after), products[0].numel()), rows)
        found.index_copy_(0, pixels_out.flatten(), _transformed(after, products, space).flatten(0, 1))
    return found[:-1].view(*shape, channels).permute(0, 3, 1, 2)


def _products(rows: Tensor, pixels: Tensor, kernels: Tensor) -> Tensor:
    """Transformed tiles times kernels, summed over the channels: [36, tiles, C']."""
    before = _both_axes(_B, rows)
    count = pixels.shape[1]
    products = _SCRATCH.take("products", (len(before), count, kernels.shape[2]), rows)
    for index, (part, own) in enumerate(zip(rows.split(_CHANNELS, 1), kernels.split(_CHANNELS, 1), strict=True)):
        space = _SCRATCH.take("transformed", (len(before), count * part.shape[1]), rows)
        tiles = _transformed(before, _tiles(part, pixels), space)
        torch.baddbmm(products, tiles, own, beta=min(index, 1), out=products)
    return products


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


def fits(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether a layer is a convolution that `WinogradConvolution` computes, and wide enough that it is faster."""
    return (
        isinstance(layer, nn.Conv2d)
        and (layer.kernel_size, layer.stride, layer.groups, layer.padding_mode) == ((3, 3), (1, 1), 1, "zeros")
        and layer.padding == layer.dilation == (layer.dilation[0],) * 2
        and min(layer.in_channels, layer.out_channels) >= LEAST_CHANNELS
    )


def use_winograd(network: nn.Module) -> None:
    """Replace all convolutions of a network that `fits` finds by `WinogradConvolution`, in place."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if fits(child):
                setattr(module, name, WinogradConvolution(child))
