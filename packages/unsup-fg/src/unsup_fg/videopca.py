"""VideoPCA: soft foreground masks of a shot, without any training.

What the principal components of a shot cannot explain moves against its background. That cue is smoothed, weighted
towards the centre and turned into colour statistics, and the colours then segment every pixel (Stretcu & Leordeanu,
BMVC 2015). The functions below stand in the order of the steps, constants are those of the group's released code unless
said otherwise. Everything is float32 on any torch device; axis letters: T frames, C = 3 colours, H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from unsup_fg.frame_file import FrameFile
from unsup_fg.shot import EPSILON, Shot, unseen
from vos_shared.errors import UserError
from vos_shared.method import Frame
from vos_shared.runtime.workers import Workers

SMOOTHING_SIGMA: Final = 5.0
"""Standard deviation of the Gaussian filter on the error, in pixels."""
SMOOTHING_RADIUS: Final = 7
"""Half-width of the Gaussian filter in pixels: 15 x 15 taps."""
CUE_THRESHOLD: Final = 0.5
"""Smoothed error above which a pixel counts as foreground for the colour statistics."""
COLOUR_BINS: Final = (100, 25, 10)
"""Number of bins of s cos(2 pi h), s sin(2 pi h) and v."""
HYSTERESIS_LOW: Final = 0.5
HYSTERESIS_HIGH: Final = 0.8
"""A connected component above the low threshold stays if it has a pixel above the high one."""

PASSES: Final = 4
"""Passes of `soft_masks` over the frames: storing, reconstruction, colour histograms, refinement."""
SHORTEST_SHOT: Final = 10
"""Fewest frames of a shot that is labelled. Ours; with no more frames than components nothing is foreground."""

_SMALLEST_ERROR: Final = 1e-4
"""A shot with a smaller largest error (a fortieth of a grey level) counts as explained exactly; it is rounding."""
_TINY: Final = 1e-30
"""Replaces a divisor that is zero, and its dividend."""
_BINS: Final = math.prod(COLOUR_BINS)


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


def soft_masks(
    frames: Iterable[Frame],
    components: int = 3,
    device: torch.device | None = None,
    advance: Callable[[int], object] = unseen,
) -> Iterator[Tensor]:
    """Soft foreground masks of one shot.

    Frames, errors and colour codes are stored in temporary files, so memory hardly grows with the shot. Only the Gram
    matrix grows, and the time for it is proportional to the square of the number of frames.

    Args:
        frames: uint8 RGB [H, W, 3]. The masks of a shot with no more frames than components are all 0, and those of
            less than `SHORTEST_SHOT` frames are poor.
        components: of the background.
        device: where to compute; the CPU by default.
        advance: called with a number of frames whenever so many have passed one of `PASSES` passes, for progress.

    Yields:
        A frame or a few at a time, float32 [t, H, W] in 0..1; exactly 0 outside the connected regions that were kept.
    """
    shot = Shot(frames, device, advance)
    colours = colour_statistics(shot, components, advance)
    prior = centre_prior(*shot.size, shot.device)

    def refine(part: slice) -> Tensor:
        likely = colours.posterior_of(part)  # [t, H, W]
        return normalise_frames(likely * hysteresis(normalise_frames(likely * prior)))

    with Workers(shot.device) as workers:
        for masks in workers.map(refine, shot.parts()):
            yield masks
            advance(len(masks))


def normalise_(values: Tensor) -> Tensor:
    """Stretch to 0..1, in place, by minimum and maximum of the whole tensor; a constant tensor becomes 0."""
    low, high = torch.aminmax(values)
    return _stretch_(values, low, high)


def _stretch_(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return values.sub_(low).div_(high - low + EPSILON)


def normalise_frames(values: Tensor) -> Tensor:
    """Stretch each frame of [T, H, W], or of [T, C, H, W] all colours jointly, to 0..1 by its minimum and maximum."""
    flat = values.flatten(1)
    low, high = flat.amin(1, keepdim=True).float(), flat.amax(1, keepdim=True).float()
    return (flat - low).div_(high - low + EPSILON).view(values.shape)


@dataclass(frozen=True)
class PrincipalComponents:
    """Principal components of the columns of D.

    Attributes:
        vectors: eigenvectors V of the Gram matrix D^T D, float32 [T, k].
        images: D V as rows, float32 [k, 3 H W].
    """

    vectors: Tensor
    images: Tensor

    @classmethod
    def of(cls, shot: Shot, count: int = 3) -> PrincipalComponents:
        """Compute those with the largest eigenvalues. D is never held as a whole: its tiles are made twice."""

        def gram(rows: slice) -> Tensor:
            total = torch.zeros(len(shot), len(shot), dtype=torch.float64)
            for _, tile in shot.tiles(rows):
                total += (tile @ tile.T).cpu().double()  # In two steps, because MPS has no float64.
            return total

        with Workers(shot.device) as workers:
            matrix = torch.zeros(len(shot), len(shot), dtype=torch.float64)
            for part in workers.map(gram, shot.blocks()):
                matrix += part
            vectors = torch.linalg.eigh(matrix).eigenvectors[:, -count:].to(shot.device, torch.float32)
            images = torch.empty(vectors.shape[1], shot.values, device=shot.device)

            def project(rows: slice) -> None:
                for part, tile in shot.tiles(rows):
                    images[:, part] = vectors.T @ tile

            workers.run(project, shot.blocks())
        return cls(vectors, images)

    def error(self, shot: Shot, part: slice, colours: Tensor) -> Tensor:
        """Distance in RGB between each pixel and its reconstruction, that is of D and D V V^T.

        Args:
            shot: the frames.
            part: some of them.
            colours: those stretched to 0..1, float32 [t, 3, H, W]; are overwritten.

        Returns:
            float32 [t, H, W] in units of a frame's range.
        """
        residual = colours.flatten(1)  # [t, 3 H W]
        residual.sub_(shot.mean(part)[:, None])
        for weights, image in zip(self.vectors[part].unbind(1), self.images, strict=True):
            residual.addcmul_(
                weights[:, None], image, value=-1
            )  # A matrix product of one row takes several times longer.
        red, green, blue = residual.square_().view(colours.shape).unbind(1)
        return red.add_(green).add_(blue).sqrt_()


def reconstruction_error(shot: Shot, components: int = 3) -> Tensor:
    """Distance in RGB between each pixel of a shot and its reconstruction from the principal components.

    Returns:
        float32 [T, H, W] in units of a frame's range; all zero where the components explain the shot.
    """
    found = PrincipalComponents.of(shot, components)
    error = torch.cat([found.error(shot, part, shot.colours(part)) for part in shot.parts()])
    return error if error.max() >= _SMALLEST_ERROR else error.zero_()


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
    height, width = values.shape[1:]
    # With zeros between rows and between frames, both filters are shifts of one long vector.
    padded = F.pad(values, (0, SMOOTHING_RADIUS, SMOOTHING_RADIUS, SMOOTHING_RADIUS))  # [T, H + 14, W + 7]
    for stride in (1, width + SMOOTHING_RADIUS):
        padded = _filter(padded.flatten(), taps.tolist(), stride).view(padded.shape)
    return padded[:, SMOOTHING_RADIUS : SMOOTHING_RADIUS + height, :width].contiguous()


def _filter(values: Tensor, taps: list[float], stride: int) -> Tensor:
    """Symmetric filter over the values of a vector that are `stride` apart; `taps` from the centre outwards."""
    length, margin = len(values), SMOOTHING_RADIUS * stride
    result = values * taps[0]
    inner = result[margin : length - margin]  # The margin holds only padding.
    pair = torch.empty_like(inner)
    for shift, tap in enumerate(taps[1:], start=1):
        before, after = margin - shift * stride, margin + shift * stride
        torch.add(values[before : before + len(inner)], values[after : after + len(inner)], out=pair)
        inner.add_(pair, alpha=tap)
    return result


def foreground_cue(error: Tensor, prior: Tensor) -> Tensor:
    """Pixels that move against the background, bool [T, H, W].

    Args:
        error: of the shot, stretched to 0..1, float32 [T, H, W].
        prior: centre prior [H, W].
    """
    values = smooth(error).mul_(prior)
    low, high = values.amin((1, 2), keepdim=True), values.amax((1, 2), keepdim=True)
    return values.sub_(low) > CUE_THRESHOLD * (high - low + EPSILON)


@dataclass(frozen=True)
class ColourStatistics:
    """How likely each colour of a shot is foreground.

    Attributes:
        codes: colour code of each pixel, int16 [H, W] a frame, see `colour_codes`.
        posterior: of each code, float32 [25000].
    """

    codes: FrameFile
    posterior: Tensor

    def posterior_of(self, part: slice) -> Tensor:
        """Look up the posterior of each pixel of some frames, float32 [t, H, W]."""
        codes = torch.from_numpy(self.codes.read(part)).to(self.posterior.device)
        return self.posterior.index_select(0, codes.flatten().int()).view(codes.shape)


def colour_statistics(shot: Shot, components: int = 3, advance: Callable[[int], object] = unseen) -> ColourStatistics:
    """Compute how likely each colour is foreground, from its share inside and outside of the cue in the whole shot.

    Args:
        shot: the frames.
        components: of the background.
        advance: called with numbers of frames, for two passes.
    """
    found = PrincipalComponents.of(shot, components)
    errors, codes = FrameFile(shot.size, np.float32), FrameFile(shot.size, np.int16)

    def explain(part: slice) -> tuple[Tensor, Tensor]:
        colours = shot.colours(part)
        _store(codes, part, colour_codes(colours))
        error = found.error(shot, part, colours)
        _store(errors, part, error)
        return torch.aminmax(error)

    def count(part: slice) -> Tensor:
        error = _stretch_(torch.from_numpy(errors.read(part)).to(shot.device), low, high)
        code = torch.from_numpy(codes.read(part)).to(shot.device, torch.int32)
        return _count(code, foreground_cue(error, prior))

    prior = centre_prior(*shot.size, shot.device)
    with Workers(shot.device) as workers:
        ranges = []
        for part, limits in zip(shot.parts(), workers.map(explain, shot.parts()), strict=True):
            ranges.append(torch.stack(limits))
            advance(part.stop - part.start)
        low, high = torch.stack(ranges)[:, 0].min(), torch.stack(ranges)[:, 1].max()
        if high < _SMALLEST_ERROR:
            low, high = torch.zeros_like(low), torch.full_like(high, torch.inf)  # Every error stretches to 0.
        counts = torch.zeros(2, _BINS, dtype=torch.int64, device=shot.device)
        for part, counted in zip(shot.parts(), workers.map(count, shot.parts()), strict=True):
            counts += counted
            advance(part.stop - part.start)
    return ColourStatistics(codes, colour_posterior(counts[0], counts[1]))


def _store(file: FrameFile, part: slice, arrays: Tensor) -> None:
    for index, array in zip(range(part.start, part.stop), arrays.cpu().numpy(), strict=True):
        file[index] = array


def _count(codes: Tensor, cue: Tensor) -> Tensor:
    """Count the pixels of each colour code outside and inside of the cue, [t, H, W] each; int64 [2, 25000]."""
    joint = codes.add_(cue, alpha=_BINS)
    return torch.bincount(joint.flatten(), minlength=2 * _BINS).view(2, _BINS)


def colour_posterior(outside: Tensor, inside: Tensor) -> Tensor:
    """Compute the probability that each colour is foreground, with equal priors of foreground and background.

    Args:
        outside: pixels of each colour code outside of the cue, int64 [25000].
        inside: the same for its inside.

    Returns:
        float32 [25000] in 0..1.
    """
    foreground = inside / (inside.sum() + EPSILON)
    background = outside + 1
    background = background / background.sum()
    return (foreground / (foreground + background)).float()


def colour_codes(colours: Tensor) -> Tensor:
    """Joint bin of hue, saturation and value.

    The bins are so fine that the order of operations decides for many pixels: it is that of Octave's rgb2hsv in
    single precision, with which the reference was made.

    Args:
        colours: RGB stretched to 0..1, float32 [T, 3, H, W].

    Returns:
        int32 [T, H, W] in 0..24999.
    """
    hue, saturation, value = hsv(colours)
    angle = hue.mul_(2 * math.pi)
    # (x + 1) / 2 (n - 1) in one product: halves of floating point numbers are exact.
    code = _nearest_(value.mul_(COLOUR_BINS[2] - 1))
    hy = _nearest_(torch.sin(angle).mul_(saturation).add_(1).mul_((COLOUR_BINS[1] - 1) / 2))
    hx = _nearest_(angle.cos_().mul_(saturation).add_(1).mul_((COLOUR_BINS[0] - 1) / 2))
    return code.mul_(COLOUR_BINS[1]).add_(hy).mul_(COLOUR_BINS[0]).add_(hx).int()


def _nearest_(values: Tensor) -> Tensor:
    """Round values of 0 or more to the nearest integer, halves upwards, in place."""
    return values.add_(0.5).floor_()


def hsv(colours: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute hue, saturation and value in 0..1, each [T, H, W].

    Of equal channels red goes before green before blue; grey has hue 0.
    """
    red, green, blue = colours.unbind(1)
    low = torch.minimum(red, green)
    low = torch.minimum(low, blue, out=low)
    value = torch.maximum(red, green)
    value = torch.maximum(value, blue, out=value)
    spread = (value - low).clamp_(min=_TINY)
    # Floats 0 and 1: `lerp` selects exactly with them, several times faster than `where`.
    is_red, is_green = value.clone().eq_(red), value.clone().eq_(green)
    difference = torch.lerp(torch.lerp(red - green, blue - red, is_green), green - blue, is_red)
    third = (2 - is_green).mul_(1 / 3).mul_(1 - is_red)  # 0 for red, 1/3 for green, 2/3 for blue
    hue = difference.mul_(1 / 6).div_(spread).add_(third)
    hue -= hue.floor()
    saturation = low.clamp_(min=_TINY).div_(value.clamp(min=_TINY)).neg_().add_(1)
    return hue, saturation, value


def hysteresis(values: Tensor) -> Tensor:
    """Connected components (8 neighbours) of values above 0.5 that contain a value above 0.8; [T, H, W].

    Returns:
        float32 [T, H, W], 1 inside of them and 0 elsewhere.
    """
    maps = values.cpu().numpy()
    kept = torch.empty(maps.shape)
    for values_of_frame, kept_of_frame in zip(maps, kept, strict=True):
        labels, count = ndimage.label(values_of_frame > HYSTERESIS_LOW, np.ones((3, 3)))
        stays = np.zeros(count + 1, np.float32)
        stays[labels[values_of_frame > HYSTERESIS_HIGH]] = 1
        chosen = torch.from_numpy(stays).index_select(0, torch.from_numpy(labels).flatten())
        kept_of_frame.copy_(chosen.view(kept_of_frame.shape))
    return kept.to(values.device)
