"""3x3 convolutions with a quarter of the multiplications, for processors.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016: F(4x4, 3x3), section 4.3. The map is cut
into tiles of 4x4 outputs, which need 6x6 inputs. Inputs and kernels are transformed (B and G), multiplied as 36 matrix
products over channels, and transformed back (A). A dilated convolution is an ordinary one between the cells that lie
`dilation` apart, so its tiles take every `dilation`-th cell.
"""

from __future__ import annotations

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
_CHANNELS: Final = 256
"""Input channels of one round of products. The transformed inputs of more need memory that the system takes back and
clears after each layer (measured: 512 has half as many page faults again)."""
_TILES: Final = 640
"""Tiles of one round, about; bounds the memory of large batches."""
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


def _tiles(rows: Tensor, pixels: Tensor) -> Tensor:
    """The tiles of a map: [pixels of the map, C] to [places, tiles, C], zero outside."""
    flat = pixels.flatten()
    found = rows.index_select(0, flat.clamp_min(0)).index_fill_(0, (flat < 0).nonzero()[:, 0], 0)
    return found.view(*pixels.shape, -1)


def _transformed(matrix: Tensor, tiles: Tensor) -> Tensor:
    """Apply a transform, [n, m], to all tiles: [m, tiles, C] to [n, tiles, C]."""
    return (matrix @ tiles.flatten(1)).view(len(matrix), *tiles.shape[1:])


def _rows(maps: Tensor) -> Tensor:
    """Maps [B, C, h, w] as [B h w, C]; a view where they are channels-last."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def transformed_kernels(weight: Tensor) -> Tensor:
    """Kernels [C', C, 3, 3] as `convolve` takes them, [36, C, C']."""
    return _transformed(_both_axes(_G, weight), weight.permute(2, 3, 1, 0).flatten(0, 1))


def convolve(maps: Tensor, kernels: Tensor, dilation: int = 1) -> Tensor:
    """3x3 convolution of stride 1 that keeps the size: its zero padding is its dilation.

    In float32 its largest error is about 1e-5 of the largest output.

    Args:
        maps: float [B, C, h, w], fastest where they are channels-last.
        kernels: of `transformed_kernels`.
        dilation: of the kernel.

    Returns:
        [B, C', h, w], channels-last.
    """
    tiles = len(_firsts(maps.shape[2], dilation)) * len(_firsts(maps.shape[3], dilation))
    parts = [_convolve(part, kernels, dilation) for part in maps.split(max(1, _TILES // tiles))]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _convolve(maps: Tensor, kernels: Tensor, dilation: int) -> Tensor:
    batch, _, height, width = maps.shape
    shape = (batch, height, width)
    inputs, outputs = _pixels(shape, dilation, range(-1, _TILE + 1)), _pixels(shape, dilation, range(_TILE))
    before, after = _both_axes(_B, maps), _both_axes(_A, maps)
    products: Tensor | None = None  # [36, tiles, C']
    for part, own in zip(_rows(maps).split(_CHANNELS, 1), kernels.split(_CHANNELS, 1), strict=True):
        tiles = _transformed(before, _tiles(part, inputs))
        products = torch.bmm(tiles, own) if products is None else products.baddbmm_(tiles, own)
    assert products is not None
    places = outputs.flatten()
    kept = (places >= 0).nonzero()[:, 0]
    order = torch.empty_like(kept).index_copy_(0, places[kept], kept)
    found = _transformed(after, products).flatten(0, 1).index_select(0, order)
    return found.view(*shape, -1).permute(0, 3, 1, 2)


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
        found = convolve(maps, self.kernels, self.dilation)
        return found if self.bias is None else found.add_(self.bias[:, None, None])


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
