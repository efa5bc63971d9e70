"""VideoPCA: soft foreground masks of a shot, without any training.

What the principal components of a shot cannot explain moves against its background. That cue is smoothed, weighted
towards the centre and turned into colour statistics, and the colours then segment every pixel (Stretcu & Leordeanu,
BMVC 2015). The functions below stand in the order of the steps, constants are those of the group's released code unless
said otherwise. Everything is float32 on any torch device; axis letters: T frames, C = 3 colours, H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from vos_shared.errors import UserError
from vos_shared.runtime.workers import Workers

SMOOTHING_SIGMA: Final = 5.0
"""Of the Gaussian filter on the error, in pixels."""
SMOOTHING_RADIUS: Final = 7
"""Its half-width: 15 x 15 taps."""
CUE_THRESHOLD: Final = 0.5
"""Smoothed error above which a pixel counts as foreground for the colour statistics."""
COLOUR_BINS: Final = (100, 25, 10)
"""Bins of s cos(2 pi h), s sin(2 pi h) and v."""
HYSTERESIS_LOW: Final = 0.5
HYSTERESIS_HIGH: Final = 0.8
"""A connected component above the low threshold stays if it has a pixel above the high one."""

SHORTEST_SHOT: Final = 10
"""Frames from which on a shot is worth labelling. Ours; with no more frames than components nothing is foreground."""

_EPSILON: Final = 2.2e-16
_SMALLEST_ERROR: Final = 1e-4
"""A shot whose largest error is below this (a fortieth of a grey level) is explained exactly; the rest is rounding."""
_TINY: Final = 1e-30
"""In place of a divisor that is zero, and of what is divided by it."""
_CHUNK: Final = 4
"""Frames that are worked on at once where each stands alone; their arrays stay in the cache."""
_TILE_VALUES: Final = 1 << 20
"""Values of the data matrix that exist as float32 at once."""


@dataclass(frozen=True)
class VideoPCASettings:
    """Settings of VideoPCA; the defaults are those of the group's releases unless said otherwise.

    Attributes:
        components: principal components that explain the background, k.
        size: side of the square that frames are resized to, bicubically and without keeping their aspect (300 as in
            HPP); None works on frames as they are.
        longest_run: longer shots are split into runs of at most so many frames, which are labelled independently.
            Ours; the MATLAB demo takes 300 frames at once.
    """

    components: int = 3
    size: int | None = 300
    longest_run: int = 300

    def __post_init__(self) -> None:
        if not 1 <= self.components < SHORTEST_SHOT:
            raise UserError(f"videopca: {self.components} components; choose 1 to {SHORTEST_SHOT - 1}")
        if self.size is not None and not 16 <= self.size <= 4096:
            raise UserError(f"videopca: working size {self.size}; choose 16 to 4096 pixels, 300 as published")
        if self.longest_run < 2 * SHORTEST_SHOT:
            raise UserError(f"videopca: runs of {self.longest_run} frames; choose {2 * SHORTEST_SHOT} or more")


def soft_masks(frames: Tensor, components: int = 3) -> Iterator[Tensor]:
    """Soft foreground masks of one shot.

    Args:
        frames: uint8 RGB [T, 3, H, W] on the device that shall do the work. The masks of a shot with no more frames
            than components are all 0, and those of less than `SHORTEST_SHOT` frames are poor.
        components: of the background.

    Yields:
        Chunks of frames in order, float32 [t, H, W] in 0..1; exactly 0 outside the connected regions that were kept.
    """
    prior = centre_prior(frames.shape[2], frames.shape[3], frames.device)
    error = normalise_(reconstruction_error(frames, components))
    codes, posterior = colour_posterior(frames, error, prior)
    del error  # The largest array here, 4 of 9 bytes for each pixel.

    def refine(part: slice) -> Tensor:
        likely = posterior.index_select(0, codes[part].flatten().int()).view(codes[part].shape)  # [t, H, W]
        return normalise_frames(likely * hysteresis(normalise_frames(likely * prior)))

    with Workers(frames.device) as workers:
        yield from workers.map(refine, _chunks(len(frames)))


def normalise_(values: Tensor) -> Tensor:
    """Stretch to 0..1, in place, by minimum and maximum of the whole tensor; what is constant becomes 0."""
    values -= values.min()
    return values.div_(values.max() + _EPSILON)


def normalise_frames(values: Tensor) -> Tensor:
    """Stretch each frame of [T, H, W], or of [T, C, H, W] all colours jointly, to 0..1 by its minimum and maximum."""
    flat = values.flatten(1)
    low, high = flat.amin(1, keepdim=True).float(), flat.amax(1, keepdim=True).float()
    return (flat - low).div_(high - low + _EPSILON).view(values.shape)


def reconstruction_error(frames: Tensor, components: int = 3) -> Tensor:
    """Distance in RGB between each pixel and its reconstruction from the principal components.

    The data matrix D has a column for each frame, centred by its own mean. D V V^T is its reconstruction, V the
    eigenvectors of the Gram matrix D^T D. D is never held as a whole: it is made twice, in tiles of pixels.

    Args:
        frames: uint8 [T, C, H, W].
        components: k, the columns of V.

    Returns:
        float32 [T, H, W] in units of a frame's range; all zero where the components explain the shot.
    """
    data = _DataMatrix(frames)
    error = torch.empty(len(frames), frames[0, 0].numel(), device=frames.device)
    with Workers(frames.device) as workers:
        gram = sum(workers.map(data.gram, data.tiles()), start=torch.zeros((), dtype=torch.float64))  # [T, T]
        vectors = torch.linalg.eigh(gram).eigenvectors[:, -components:].to(frames.device, torch.float32)  # [T, k]

        def explain(tile: slice) -> None:
            rows = data.tile(tile).flatten(1)  # [T, C p]
            rows.addmm_(vectors, vectors.T @ rows, alpha=-1)
            red, green, blue = rows.square_().view(len(rows), 3, -1).unbind(1)
            error[:, tile] = red.add_(green).add_(blue).sqrt_()

        workers.run(explain, data.tiles())
    if error.max() < _SMALLEST_ERROR:
        error.zero_()
    return error.view(len(frames), *frames.shape[2:])


class _DataMatrix:
    """Frames stretched to 0..1 and centred by their mean, in tiles of pixels."""

    def __init__(self, frames: Tensor) -> None:
        self._frames = frames.flatten(2)  # [T, C, P]
        flat = frames.flatten(1)
        low, high = flat.amin(1).float(), flat.amax(1).float()
        self._scale = (high - low + _EPSILON)[:, None, None]
        # The minimum goes out of the difference: (x - low) / scale - (mean - low) / scale.
        sums = torch.stack([frame.sum(dtype=torch.int64) for frame in flat])  # Five times faster than flat.sum(1).
        mean = sums.cpu().double() / flat.shape[1]
        self._mean = mean.to(frames.device, torch.float32)[:, None, None]

    def tiles(self) -> Iterator[slice]:
        """Divide the pixels."""
        pixels = self._frames.shape[2]
        width = max(256, _TILE_VALUES // self._frames[:, :, 0].numel())
        return (slice(start, min(start + width, pixels)) for start in range(0, pixels, width))

    def tile(self, pixels: slice) -> Tensor:
        """The transpose of some rows of D, float32 [T, C, p]."""
        return self._frames[:, :, pixels].float().sub_(self._mean).div_(self._scale)

    def gram(self, pixels: slice) -> Tensor:
        """What some rows add to the Gram matrix, float64 [T, T] on the CPU."""
        rows = self.tile(pixels).flatten(1)
        return (rows @ rows.T).cpu().double()  # In two steps: MPS has no float64.


def centre_prior(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """Isotropic Gaussian around the image centre, sigma a third of the shorter side; float32 [H, W]."""
    sigma = min(height, width) / 3
    rows, columns = (torch.arange(length, dtype=torch.float64) - (length - 1) / 2 for length in (height, width))
    squared = rows.square()[:, None] + columns.square()
    return torch.exp(squared / (-2 * sigma**2)).to(device, torch.float32)


def smooth(values: Tensor) -> Tensor:
    """Gaussian filter of 15 x 15 taps over float32 [T, H, W]; outside the frame there are zeros."""
    offsets = torch.arange(SMOOTHING_RADIUS + 1, dtype=torch.float64)
    taps = torch.exp(offsets.square() / (-2 * SMOOTHING_SIGMA**2))
    taps /= 2 * taps.sum() - taps[0]
    for axis in (1, 2):
        values = _filter_axis(values, taps.tolist(), axis)
    return values


def _filter_axis(values: Tensor, taps: list[float], axis: int) -> Tensor:
    """Symmetric filter along one axis; `taps` from the centre outwards."""
    length = values.shape[axis]
    result = values * taps[0]
    for shift, tap in enumerate(taps[1:], start=1):
        if shift >= length:
            break
        result.narrow(axis, shift, length - shift).add_(values.narrow(axis, 0, length - shift), alpha=tap)
        result.narrow(axis, 0, length - shift).add_(values.narrow(axis, shift, length - shift), alpha=tap)
    return result


def foreground_cue(error: Tensor, prior: Tensor) -> Tensor:
    """Pixels that move against the background, bool [T, H, W].

    Args:
        error: of the shot, stretched to 0..1, float32 [T, H, W].
        prior: centre prior [H, W].
    """
    return normalise_frames(smooth(error).mul_(prior)) > CUE_THRESHOLD


def colour_posterior(frames: Tensor, error: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
    """How likely each colour is foreground, from its share in the cue and outside, over the whole shot.

    Args:
        frames: uint8 [T, 3, H, W].
        error: stretched to 0..1, float32 [T, H, W].
        prior: centre prior [H, W].

    Returns:
        Colour code of each pixel, int16 [T, H, W], and the posterior of each code, float32 [25000].
    """
    bins = math.prod(COLOUR_BINS)
    codes = torch.empty(error.shape, dtype=torch.int16, device=frames.device)

    def count(part: slice) -> Tensor:
        cue = foreground_cue(error[part], prior)
        code = colour_codes(normalise_frames(frames[part]))
        codes[part] = code
        return torch.stack([torch.bincount(pixels.flatten(), minlength=bins) for pixels in (code, code[cue])])

    with Workers(frames.device) as workers:
        counts = workers.map(count, _chunks(len(frames)))
        everywhere, inside = sum(counts, start=torch.zeros(2, bins, dtype=torch.int64, device=frames.device))
    foreground = inside / (inside.sum() + _EPSILON)
    background = everywhere - inside + 1
    background = background / background.sum()
    return codes, (foreground / (foreground + background)).to(frames.device, torch.float32)


def colour_codes(colours: Tensor) -> Tensor:
    """Joint bin of hue, saturation and value.

    The bins are so fine that the order of operations decides for many pixels: it is that of Octave's rgb2hsv in
    single precision, with which the reference was made.

    Args:
        colours: RGB stretched to 0..1, float32 [T, 3, H, W].

    Returns:
        int32 [T, H, W] in 0..24999.
    """
    hue, saturation, value = _hsv(colours)
    angle = hue.mul_(2 * math.pi)
    code = _bin(value, COLOUR_BINS[2]).mul_(COLOUR_BINS[1])
    code += _bin(torch.sin(angle).mul_(saturation).add_(1).div_(2), COLOUR_BINS[1])
    code *= COLOUR_BINS[0]
    code += _bin(angle.cos_().mul_(saturation).add_(1).div_(2), COLOUR_BINS[0])
    return code


def _bin(values: Tensor, bins: int) -> Tensor:
    """Nearest of `bins` levels of 0..1, halves upwards."""
    return (values * (bins - 1)).add_(0.5).int()


def _hsv(colours: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hue, saturation and value in 0..1, each [T, H, W]. Red goes before green before blue; grey has hue 0."""
    red, green, blue = colours.unbind(1)
    low = torch.minimum(red, green).minimum(blue)
    value = torch.maximum(red, green).maximum(blue)
    spread = (value - low).clamp_(min=_TINY)
    hue = (red - green).mul_(1 / 6).div_(spread).add_(2 / 3)
    hue = torch.where(value == green, (blue - red).mul_(1 / 6).div_(spread).add_(1 / 3), hue)
    hue = torch.where(value == red, (green - blue).mul_(1 / 6).div_(spread), hue)
    hue -= hue.floor()
    saturation = 1 - low.clamp_(min=_TINY).div_(value.clamp(min=_TINY))
    return hue, saturation, value


def hysteresis(values: Tensor) -> Tensor:
    """Connected components (8 neighbours) of values above 0.5 that hold a value above 0.8; bool [T, H, W]."""
    maps = values.cpu().numpy()
    kept = np.empty(maps.shape, bool)
    for values_of_frame, kept_of_frame in zip(maps, kept, strict=True):
        labels, count = ndimage.label(values_of_frame > HYSTERESIS_LOW, np.ones((3, 3)))
        stays = np.zeros(count + 1, bool)
        stays[labels[values_of_frame > HYSTERESIS_HIGH]] = True
        np.take(stays, labels, out=kept_of_frame)
    return torch.from_numpy(kept).to(values.device)


def _chunks(count: int) -> Iterator[slice]:
    return (slice(start, start + _CHUNK) for start in range(0, count, _CHUNK))
