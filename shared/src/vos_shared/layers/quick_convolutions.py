"""Convolutions that train faster on a processor. Weights and their names stay, numbers are equal but for rounding."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

from vos_shared.layers.products import pointwise
from vos_shared.layers.winograd import has_tiles, trained_convolve

LEAST_PRODUCTS: Final = 64**2
"""Input times output channels of a layer from which on it is faster (measured)."""
LEAST_PIXELS: Final = 1024
"""Pixels of all maps of a batch from which on Winograd's algorithm is faster (measured)."""


class _Pointwise(nn.Conv2d):
    def forward(self, maps: Tensor) -> Tensor:
        if maps.device.type != "cpu":
            return super().forward(maps)
        return pointwise(maps, self.weight, self.bias, self.stride[0])


class _Winograd(nn.Conv2d):
    def forward(self, maps: Tensor) -> Tensor:
        half = maps.dtype in (torch.bfloat16, torch.float16) or torch.is_autocast_enabled("cpu")
        if maps.device.type != "cpu" or half or maps[:, 0].numel() < LEAST_PIXELS:
            return super().forward(maps)
        return trained_convolve(maps, self.weight, self.dilation[0], self.bias)


def use_quick_convolutions(network: nn.Module) -> None:
    """Let the wide 1x1 and 3x3 convolutions of a network compute faster on a processor, in place.

    On other devices, and the 3x3 ones in half precision and for small maps, they stay PyTorch's.
    """
    for module in network.modules():
        if type(module) is not nn.Conv2d or module.in_channels * module.out_channels < LEAST_PRODUCTS:
            continue
        if (module.kernel_size, module.padding, module.groups) == ((1, 1), (0, 0), 1):
            if module.stride[0] == module.stride[1]:
                module.__class__ = _Pointwise
        elif has_tiles(module):
            module.__class__ = _Winograd
