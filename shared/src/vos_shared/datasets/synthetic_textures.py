"""Procedural textures of synthetic clips: grounds, and coats of the objects.

All values are float32; colours are RGB in 0..1. Textures repeat without a seam, since their noise is filtered in the
frequency domain.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import fft
from scipy.spatial import cKDTree
from scipy.special import ndtr

Field: TypeAlias = npt.NDArray[np.float32]
"""Values [H, W] or [H, W, C]."""

Palette: TypeAlias = Sequence[str]
"""Colours as ``rrggbb``, from dark to light or from low to high."""

LIGHT: Final = np.array([-0.48, -0.55, 0.68], dtype=np.float32) / np.float32(np.linalg.norm([0.48, 0.55, 0.68]))
"""Direction towards the light, from the upper left: x to the right, y down, z to the viewer."""


def noise(
    rng: np.random.Generator, shape: tuple[int, int], detail: float, *, slope: float = 1.7, stretch: float = 1.0
) -> Field:
    """Fractal noise, evenly distributed over 0..1.

    Args:
        rng: random generator.
        shape: (H, W).
        detail: number of the largest blotches along the short side.
        slope: decay of the spectrum; 1 is rough, 3 is smooth.
        stretch: width of the blotches divided by their height.
    """
    height, width = shape
    short = min(shape)
    down = fft.fftfreq(height, 1 / height).astype(np.float32)[:, None] * short / height
    across = fft.rfftfreq(width, 1 / width).astype(np.float32) * short / width * np.float32(stretch)
    frequency = np.hypot(down, across)
    frequency[0, 0] = 1
    amplitude = frequency**-slope / (1 + (detail / frequency) ** 4)
    amplitude[0, 0] = 0
    white = rng.standard_normal(shape, dtype=np.float32)
    field = fft.irfft2(fft.rfft2(white) * amplitude, s=shape)
    even: Field = ndtr(field / field.std()).astype(np.float32)
    return even


def sample(texture: Field, y: Field, x: Field) -> Field:
    """Sample a texture [H, W, C] at pixel positions [h, w], bilinear and periodic: [h, w, C]."""
    height, width, channels = texture.shape
    colours = texture.reshape(-1, channels)
    top, left = np.floor(y), np.floor(x)
    down, right = (y - top).astype(np.float32)[..., None], (x - left).astype(np.float32)[..., None]
    row, column = top.astype(np.int32) % height, left.astype(np.int32) % width
    below, after = (row + 1) % height * width, (column + 1) % width
    row *= width
    upper: Field = np.take(colours, row + column, axis=0)
    upper += (np.take(colours, row + after, axis=0) - upper) * right
    lower = np.take(colours, below + column, axis=0)
    lower += (np.take(colours, below + after, axis=0) - lower) * right
    upper += (lower - upper) * down
    return upper


def warp(field: Field, rng: np.random.Generator, amount: float, detail: float = 3) -> Field:
    """Displace a field by smooth noise, `amount` in short sides."""
    shape = field.shape[0], field.shape[1]
    reach = 2 * amount * min(shape)
    y, x = np.indices(shape, dtype=np.float32)
    y += reach * (noise(rng, shape, detail, slope=3) - 0.5)
    x += reach * (noise(rng, shape, detail, slope=3) - 0.5)
    return sample(field[..., None], y, x)[..., 0]


def ramp(palette: Palette, position: Field) -> Field:
    """Colours along a palette, at positions 0..1: [..., 3]."""
    stops = np.array([[int(colour[i : i + 2], 16) / 255 for i in (0, 2, 4)] for colour in palette])
    places = np.linspace(0, 1, len(stops))
    return np.stack([np.interp(position, places, channel) for channel in stops.T], axis=-1).astype(np.float32)


def smoothstep(low: float, high: float, field: Field) -> Field:
    """0 below `low`, 1 above `high`, smooth between."""
    t = np.clip((field - low) / (high - low), 0, 1)
    step: Field = (t * t * (3 - 2 * t)).astype(np.float32)
    return step


def slopes(height: Field) -> tuple[Field, Field]:
    """Slopes of a periodic field down and across, per pixel."""
    down = (np.roll(height, -1, 0) - np.roll(height, 1, 0)) / 2
    across = (np.roll(height, -1, 1) - np.roll(height, 1, 1)) / 2
    return down.astype(np.float32), across.astype(np.float32)


def relief(colour: Field, height: Field, depth: float) -> Field:
    """Shade a surface with bumps of height `depth` in pixels."""
    down, across = slopes(height * np.float32(depth))
    shade = (LIGHT[2] - across * LIGHT[0] - down * LIGHT[1]) / np.sqrt(1 + across**2 + down**2) / LIGHT[2]
    lit: Field = colour * np.clip(shade, 0.35, 1.6)[..., None].astype(np.float32)
    return lit


@dataclass(frozen=True)
class Cells:
    """A plane divided into the Voronoi cells of random points.

    Attributes:
        nearest: distance of each pixel to its point, in mean distances between points.
        border: distance of each pixel to the next cell, in the same unit.
        index: index of each pixel's point.
    """

    nearest: Field
    border: Field
    index: npt.NDArray[np.intp]


def cells(rng: np.random.Generator, shape: tuple[int, int], per_side: float) -> Cells:
    """Divide a periodic plane into cells, about `per_side` along its short side."""
    spacing = min(shape) / per_side
    size = np.array(shape)
    down, across = np.maximum(1, np.round(size / spacing)).astype(int)
    grid = np.stack(np.meshgrid(np.arange(down), np.arange(across), indexing="ij"), axis=-1).reshape(-1, 2)
    points = (grid + 0.5 + rng.uniform(-0.38, 0.38, grid.shape)) / (down, across) * size % size
    tree = cKDTree(points, boxsize=size)
    pixels = np.indices(shape).reshape(2, -1).T
    distance, index = tree.query(pixels, k=2)
    distance = (distance / spacing).astype(np.float32).reshape(*shape, 2)
    return Cells(distance[..., 0], distance[..., 1] - distance[..., 0], index[:, 0].reshape(shape))


# Grounds: functions of (rng, shape) to colours [H, W, 3].


def sand(rng: np.random.Generator, shape: tuple[int, int]) -> Field:
    """Dunes with wind ripples."""
    y = np.indices(shape, dtype=np.float32)[0] / shape[0]
    bend = noise(rng, shape, 1.5, slope=3.2)
    ripples = 0.5 + 0.5 * np.sin(2 * np.pi * (round(15 * shape[0] / min(shape)) * y + 3 * bend)).astype(np.float32)
    grain = noise(rng, shape, 60, slope=0.6)
    dunes = noise(rng, shape, 1.5, slope=3)
    tone = 0.55 * dunes + 0.25 * ripples + 0.2 * grain
    return relief(ramp(("8a6a45", "b8935f", "d4b483", "ecd9b0"), tone), ripples + 0.15 * grain + 3 * dunes, 2.2)


def moss(rng: np.random.Generator, shape: tuple[int, int]) -> Field:
    """A forest floor from above."""
    tufts, blades = noise(rng, shape, 5, slope=1.7), noise(rng, shape, 24, slope=1.3)
    tone = 0.6 * tufts + 0.4 * blades
    green = ramp(("1d2a14", "2f4420", "4b6530", "74874a", "a3a86c"), tone)
    litter = smoothstep(0.72, 0.86, noise(rng, shape, 5, slope=1.3))[..., None]
    brown = ramp(("2b1d12", "5d4026", "9a744a"), blades)
    return relief(green * (1 - litter) + brown * litter, tufts + 0.5 * blades, 3)


def shallows(rng: np.random.Generator, shape: tuple[int, int]) -> Field:
    """Sunlight through clear water, over a sandy bottom."""
    net = np.zeros(shape, dtype=np.float32)
    for detail in (5, 8):
        lines = 1 - np.abs(2 * warp(noise(rng, shape, detail, slope=3.4), rng, 0.03) - 1)
        net += smoothstep(0.72, 1, lines) ** 1.5
    bottom = noise(rng, shape, 2, slope=1.8)
    colour = ramp(("0f4a5c", "1c7582", "3d9fa0", "86c7b5"), 0.85 * bottom + 0.08)
    return colour * 0.92 + 0.30 * net[..., None] * np.array([0.95, 1.0, 0.86], dtype=np.float32)


def rock(rng: np.random.Generator, shape: tuple[int, int]) -> Field:
    """Weathered slate with lichen."""
    ridges = 1 - np.abs(2 * warp(noise(rng, shape, 2.5, slope=2.3, stretch=0.6), rng, 0.06) - 1)
    grain = noise(rng, shape, 30, slope=0.9)
    stone = ramp(("2f3338", "565a5f", "7f8180", "a9a59b"), 0.55 * ridges + 0.45 * grain)
    lichen = smoothstep(0.74, 0.84, 0.7 * noise(rng, shape, 5, slope=1.5) + 0.3 * grain)[..., None]
    colour = stone * (1 - 0.75 * lichen) + 0.75 * lichen * ramp(("8a7a2d", "c2a94e", "d9cf9a"), grain)
    return relief(colour, 1.2 * ridges + 0.3 * grain, 3.2)


def planks(rng: np.random.Generator, shape: tuple[int, int]) -> Field:
    """A floor of old boards."""
    boards = round(6 * shape[0] / min(shape))
    y = np.indices(shape, dtype=np.float32)[0] / shape[0] * boards
    board = y.astype(np.intp)
    fibre = noise(rng, shape, 9, slope=1.2, stretch=9)
    rings = 0.5 + 0.5 * np.sin(28 * noise(rng, shape, 2, slope=2.6, stretch=6)).astype(np.float32)
    tone = 0.5 * fibre + 0.3 * rings + rng.uniform(-0.05, 0.25, boards).astype(np.float32)[board]
    seam = smoothstep(0, 0.045, np.minimum(y % 1, 1 - y % 1))
    colour = ramp(("3b2415", "6e4626", "a06d3d", "c79a63"), tone) * (0.25 + 0.75 * seam)[..., None]
    return relief(colour, 0.5 * fibre + seam, 1.5)


def paving(rng: np.random.Generator, shape: tuple[int, int]) -> Field:
    """Split stones, laid as they came."""
    parts = cells(rng, shape, 7)
    shade = rng.random(int(parts.index.max()) + 1, dtype=np.float32)[parts.index]
    grain = noise(rng, shape, 20, slope=1.2)
    stone = ramp(("6b4433", "96664a", "b98f68", "a39a84", "c9b594"), shade + 0.16 * (grain - 0.5))
    joint = smoothstep(0.03, 0.12, warp(parts.border, rng, 0.008, 9))
    colour = stone * (0.35 + 0.65 * joint)[..., None]
    return relief(colour, 1.3 * joint + 0.25 * grain + 0.5 * noise(rng, shape, 6, slope=2.2), 3)


GROUNDS: Final[Mapping[str, Callable[[np.random.Generator, tuple[int, int]], Field]]] = {
    "sand": sand,
    "moss": moss,
    "shallows": shallows,
    "rock": rock,
    "planks": planks,
    "paving": paving,
}

# Coats: functions of (rng, side) to the share of the second colour, [side, side] in 0..1.


def stripes(rng: np.random.Generator, side: int) -> Field:
    """Like a zebra's."""
    x = np.indices((side, side), dtype=np.float32)[1] / side
    waves = np.sin(2 * np.pi * (rng.integers(4, 7) * x + 0.9 * noise(rng, (side, side), 2, slope=2.6)))
    return smoothstep(-0.25, 0.25, waves.astype(np.float32))


def spots(rng: np.random.Generator, side: int) -> Field:
    """Like a ladybird's."""
    parts = cells(rng, (side, side), float(rng.uniform(4.5, 6)))
    return 1 - smoothstep(0.27, 0.34, parts.nearest)


def patches(rng: np.random.Generator, side: int) -> Field:
    """Like a giraffe's."""
    parts = cells(rng, (side, side), float(rng.uniform(4.5, 6)))
    return smoothstep(0.10, 0.19, warp(parts.border, rng, 0.015, 6))


def marble(rng: np.random.Generator, side: int) -> Field:
    """Veins."""
    lines = np.abs(2 * warp(noise(rng, (side, side), 1.5, slope=2.6), rng, 0.08) - 1)
    return 1 - smoothstep(0.03, 0.35, lines)


def blotches(rng: np.random.Generator, side: int) -> Field:
    """Like a cow's."""
    return smoothstep(0.5, 0.56, warp(noise(rng, (side, side), 2.5, slope=3.2), rng, 0.04))


COATS: Final[Sequence[Callable[[np.random.Generator, int], Field]]] = (stripes, spots, patches, marble, blotches)
