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
from functools import cache
from typing import Final, TypeVar

import numpy as np
import torch
from scipy import linalg, ndimage
from torch import Tensor
from torch.nn import functional as F

from unsup_fg.colours import BINS, colour_codes
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
HYSTERESIS_LOW: Final = 0.5
HYSTERESIS_HIGH: Final = 0.8
"""A connected component above the low threshold stays if it has a pixel above the high one."""

PASSES: Final = 5
"""Passes of `soft_masks` over the frames: storing, Gram matrix, reconstruction, colour histograms, refinement."""
SHORTEST_SHOT: Final = 10
"""Fewest frames of a shot that is labelled. Ours; with no more frames than components nothing is foreground."""
SHOT_BYTES: Final = 3 + 4 + 2
"""Bytes of a pixel in temporary files: colours, error and colour code."""

_SMALLEST_ERROR: Final = 1e-4
"""A shot with a smaller largest error (a fortieth of a grey level) counts as explained exactly; it is rounding."""
_GRAM_FRAMES: Final = 128
"""Columns of the Gram matrix that one matrix product computes."""
_SMOOTHED: Final = 64
"""Rows or columns that one matrix product smooths."""

R = TypeVar("R")


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
    error = ReconstructionError.of(shot, components, advance)
    colours = colour_statistics(shot, error, advance)
    prior = centre_prior(*shot.size, shot.device)

    def refine(part: slice) -> Tensor:
        likely = colours.posterior_of(part)  # [t, H, W]
        return normalise_frames_(likely.mul_(hysteresis(normalise_frames_(likely * prior))))

    with Workers(shot.device) as workers:
        for masks in workers.map(refine, shot.parts()):
            yield masks
            advance(len(masks))


def normalise_frames_(values: Tensor) -> Tensor:
    """Stretch each frame of float32 [T, H, W] to 0..1 by its minimum and maximum, in place."""
    low, high = values.amin((1, 2), keepdim=True), values.amax((1, 2), keepdim=True)
    return values.sub_(low).div_(high - low + EPSILON)


def principal_components(shot: Shot, components: int = 3, advance: Callable[[int], object] = unseen) -> Tensor:
    """Principal components of the columns of D: the eigenvectors V of the Gram matrix D^T D with the largest values.

    Args:
        shot: the frames.
        components: how many, k.
        advance: called with numbers of frames, for one pass.

    Returns:
        float32 [T, k].
    """
    count = len(shot)
    starts = range(0, count, _GRAM_FRAMES)

    def gram(block: slice) -> list[Tensor]:  # The lower triangle; the matrix is symmetric.
        strips = [torch.zeros(count - start, min(_GRAM_FRAMES, count - start), device=shot.device) for start in starts]
        for _, tile in shot.tiles(block):
            rows = tile.flatten(1)
            for start, strip in zip(starts, strips, strict=True):
                strip.addmm_(rows[start:], rows[start : start + _GRAM_FRAMES].T)
        return [strip.cpu() for strip in strips]

    matrix = torch.zeros(count, count, dtype=torch.float64)
    for strips in _by_block(shot, gram, advance):
        for start, strip in zip(starts, strips, strict=True):
            matrix[start:, start : start + _GRAM_FRAMES] += strip
    return _leading_eigenvectors(matrix, components).to(shot.device)


def _leading_eigenvectors(matrix: Tensor, count: int) -> Tensor:
    """Eigenvectors with the largest values of a symmetric matrix, of which the lower triangle is used.

    Args:
        matrix: float64 [T, T]; is overwritten, because the Gram matrix of a long shot is large.
        count: how many, k.

    Returns:
        float32 [T, k], in ascending order of values.
    """
    chosen = max(0, len(matrix) - count), len(matrix) - 1
    _, vectors = linalg.eigh(matrix.numpy().T, lower=False, overwrite_a=True, subset_by_index=chosen)
    return torch.from_numpy(vectors).float().contiguous()


@dataclass(frozen=True)
class ReconstructionError:
    """Distance in RGB between each pixel of a shot and its reconstruction from the principal components.

    Attributes:
        distances: float32 [H, W] a frame, in units of the frame's range.
        low: smallest distance of the shot.
        high: largest one; infinite where the components explain the shot, so that every distance stretches to 0.
        device: where `stretched` returns.
    """

    distances: FrameFile
    low: float
    high: float
    device: torch.device

    @classmethod
    def of(cls, shot: Shot, components: int = 3, advance: Callable[[int], object] = unseen) -> ReconstructionError:
        """Compute D - D V V^T tile by tile; D is never held as a whole.

        Args:
            shot: the frames.
            components: of the background.
            advance: called with numbers of frames, for two passes.
        """
        vectors = principal_components(shot, components, advance)
        distances = FrameFile(shot.size, np.float32)

        def explain(block: slice) -> tuple[float, float]:
            found = torch.empty(len(shot), block.stop - block.start)
            for pixels, tile in shot.tiles(block):
                rows = tile.flatten(1)  # [T, 3 p]
                rows.addmm_(vectors, vectors.T @ rows, alpha=-1)
                red, green, blue = tile.square_().unbind(1)
                found[:, pixels] = red.add_(green).add_(blue).sqrt_()
            distances.write_columns(block, found.numpy())
            low, high = torch.aminmax(found)
            return low.item(), high.item()

        lows, highs = zip(*_by_block(shot, explain, advance), strict=True)
        low, high = min(lows), max(highs)
        return cls(distances, low, high if high >= _SMALLEST_ERROR else math.inf, shot.device)

    def stretched(self, part: slice) -> Tensor:
        """Errors of some frames, stretched to 0..1 over the whole shot, float32 [t, H, W]."""
        distances = torch.from_numpy(self.distances.read(part)).to(self.device)
        return distances.sub_(self.low).div_(self.high - self.low + EPSILON)


def _by_block(shot: Shot, function: Callable[[slice], R], advance: Callable[[int], object]) -> Iterator[R]:
    """Results for the blocks of a shot in order; reports one pass over its frames."""
    reported, pixels = 0, math.prod(shot.size)
    with Workers(shot.device) as workers:
        for block, result in zip(shot.blocks(), workers.map(function, shot.blocks()), strict=True):
            yield result
            done = len(shot) * block.stop // pixels
            advance(done - reported)
            reported = done


def centre_prior(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """Isotropic Gaussian around the image centre, sigma a third of the shorter side; float32 [H, W]."""
    sigma = min(height, width) / 3
    rows, columns = (torch.arange(length, dtype=torch.float64) - (length - 1) / 2 for length in (height, width))
    squared = rows.square()[:, None] + columns.square()
    return torch.exp(squared / (-2 * sigma**2)).to(device, torch.float32)


def smooth(values: Tensor) -> Tensor:
    """Gaussian filter of 15 x 15 taps over float32 [T, H, W]; outside the frame there are zeros."""
    frames, height, width = values.shape
    band = _smoothing_band().to(values.device).expand(frames, -1, -1)
    padded = F.pad(values, (SMOOTHING_RADIUS,) * 4)
    down, result = padded.new_empty(frames, height, padded.shape[2]), torch.empty_like(values)
    for start in range(0, height, _SMOOTHED):
        rows = min(_SMOOTHED, height - start)
        reach = rows + 2 * SMOOTHING_RADIUS
        torch.bmm(band[:, :rows, :reach], padded[:, start : start + reach], out=down[:, start : start + rows])
    for start in range(0, width, _SMOOTHED):
        columns = min(_SMOOTHED, width - start)
        reach = columns + 2 * SMOOTHING_RADIUS
        torch.bmm(
            down[..., start : start + reach], band[:, :columns, :reach].mT, out=result[..., start : start + columns]
        )
    return result


@cache
def _smoothing_band() -> Tensor:
    """Matrix that filters columns of 64 values and 7 beyond them on each side: band of taps, float32 [64, 78].

    Two products with its blocks are faster than 15 shifts in each direction.
    """
    offsets = torch.arange(_SMOOTHED + 2 * SMOOTHING_RADIUS) - torch.arange(_SMOOTHED)[:, None] - SMOOTHING_RADIUS
    taps = torch.exp(offsets.double().square() / (-2 * SMOOTHING_SIGMA**2)) * (offsets.abs() <= SMOOTHING_RADIUS)
    return (taps / taps[0].sum()).float()


def foreground_cue(error: Tensor, prior: Tensor) -> Tensor:
    """Find the pixels that move against the background, float32 [T, H, W]: 1 there and 0 elsewhere.

    Args:
        error: of the shot, stretched to 0..1, float32 [T, H, W].
        prior: centre prior [H, W].
    """
    values = smooth(error).mul_(prior)
    low, high = values.amin((1, 2), keepdim=True), values.amax((1, 2), keepdim=True)
    return values.sub_(low).gt_(CUE_THRESHOLD * (high - low + EPSILON))  # Several times faster than `>`.


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


def colour_statistics(
    shot: Shot, error: ReconstructionError, advance: Callable[[int], object] = unseen
) -> ColourStatistics:
    """Compute how likely each colour is foreground, from its share inside and outside of the cue in the whole shot.

    Args:
        shot: the frames.
        error: of its reconstruction.
        advance: called with numbers of frames, for one pass.
    """
    codes = FrameFile(shot.size, np.int16)
    prior = centre_prior(*shot.size, shot.device)

    def count(part: slice) -> Tensor:
        code = torch.empty(part.stop - part.start, *shot.size, dtype=torch.int16, device=shot.device)
        for pixels, colours in shot.strips(part):
            code.flatten(1)[:, pixels] = colour_codes(colours)
        for index, array in zip(range(part.start, part.stop), code.cpu().numpy(), strict=True):
            codes[index] = array
        return _count(code, foreground_cue(error.stretched(part), prior))

    counts = torch.zeros(2, BINS, dtype=torch.int64, device=shot.device)
    with Workers(shot.device) as workers:
        for part, counted in zip(shot.parts(), workers.map(count, shot.parts()), strict=True):
            counts += counted
            advance(part.stop - part.start)
    return ColourStatistics(codes, colour_posterior(counts[0], counts[1]))


def _count(codes: Tensor, cue: Tensor) -> Tensor:
    """Count the pixels of each colour code outside and inside of the cue, [t, H, W] each; int64 [2, 25000]."""
    joint = codes.int().add_(cue.int(), alpha=BINS)
    return torch.bincount(joint.flatten(), minlength=2 * BINS).view(2, BINS)


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
        torch.index_select(
            torch.from_numpy(stays), 0, torch.from_numpy(labels).flatten(), out=kept_of_frame.flatten()
        )  # Writes to `kept`, whose frames are contiguous.
    return kept.to(values.device)
