"""Colours as VideoPCA counts them: hue, saturation and value, and their joint bins.

Constants are those of the group's released code.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor

COLOUR_BINS: Final = (100, 25, 10)
"""Number of bins of s cos(2 pi h), s sin(2 pi h) and v."""
BINS: Final = math.prod(COLOUR_BINS)
_TINY: Final = 1e-30
"""Replaces a divisor that is zero, and its dividend."""


def colour_codes(colours: Tensor) -> Tensor:
    """Joint bin of hue, saturation and value.

    The bins are so fine that the order of operations decides for many pixels: it is that of Octave's rgb2hsv in
    single precision, with which the reference was made.

    Args:
        colours: RGB stretched to 0..1, float32 [T, 3, ...]; are overwritten.

    Returns:
        int16 [T, ...] in 0..24999.
    """
    hue, saturation, value = hsv_(colours)
    angle = hue.mul_(2 * math.pi)
    # (x + 1) / 2 (n - 1) in one product: halves of floating point numbers are exact.
    code = _nearest_(value.mul_(COLOUR_BINS[2] - 1))
    hy = _nearest_(torch.sin(angle).mul_(saturation).add_(1).mul_((COLOUR_BINS[1] - 1) / 2))
    hx = _nearest_(angle.cos_().mul_(saturation).add_(1).mul_((COLOUR_BINS[0] - 1) / 2))
    return code.mul_(COLOUR_BINS[1]).add_(hy).mul_(COLOUR_BINS[0]).add_(hx).short()


def _nearest_(values: Tensor) -> Tensor:
    """Round values of 0 or more to the nearest integer, halves upwards, in place."""
    return values.add_(0.5).floor_()


def hsv(colours: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute hue, saturation and value in 0..1, each [T, H, W], of colours in 0..1, float32 [T, 3, H, W]."""
    return hsv_(colours.clone())


def hsv_(colours: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same, and overwrite the colours: a new tensor for each result takes longer than the arithmetic.

    Of equal channels red goes before green before blue; grey has hue 0.
    """
    red, green, blue = colours.unbind(1)
    low, value = torch.minimum(red, green), torch.maximum(red, green)
    torch.minimum(low, blue, out=low)
    torch.maximum(value, blue, out=value)
    spread = (value - low).clamp_(min=_TINY)
    is_red, is_green = value.clone().eq_(red), value.clone().eq_(green)  # 1 and 0, with which `lerp` selects exactly.
    blue_hue = red - green
    red_hue, green_hue = green.sub_(blue), blue.sub_(red)
    hue = blue_hue.lerp_(green_hue, is_green).lerp_(red_hue, is_red)
    third = is_green.mul_(-1 / 3).add_(2 / 3)
    third.addcmul_(third, is_red, value=-1)  # 0 for red, 1/3 for green, 2/3 for blue
    hue.mul_(1 / 6).div_(spread).add_(third)
    hue.sub_(torch.floor(hue, out=spread))
    saturation = low.clamp_(min=_TINY).div_(torch.clamp(value, min=_TINY, out=third)).neg_().add_(1)
    return hue, saturation, value
