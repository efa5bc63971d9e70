"""Rendering of synthetic clips: bodies with outline, coat, light and shadow over a ground that a camera views.

All values are float32; colours are RGB in 0..1; angles are radians; y points down.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vos_shared.datasets.synthetic_textures import LIGHT, Field, sample, smoothstep
from vos_shared.method import ObjectMask


@dataclass(frozen=True)
class Body:
    """An object: a closed outline around a moving centre, filled by a coat that turns and deforms with it.

    The outline is the radius r(a, t) = size (1 + sum of swing[k] cos((k + 2) a + phase[k] + pulse[k] t)).

    Attributes:
        size: mean radius in pixels.
        path: centre (y, x) in each frame, [T, 2].
        turn: angle in each frame, radians, [T].
        swing: amplitude of each harmonic, [4].
        phase: phase of each harmonic, radians, [4].
        pulse: change of each phase per frame, radians, [4].
        coat: colour and slopes of its bumps down and across, [S, S, 5].
        gloss: strength of the highlight.
    """

    size: float
    path: npt.NDArray[np.float64]
    turn: npt.NDArray[np.float64]
    swing: npt.NDArray[np.float64]
    phase: npt.NDArray[np.float64]
    pulse: npt.NDArray[np.float64]
    coat: Field
    gloss: float


@dataclass(frozen=True)
class Scene:
    """The content of a clip.

    Attributes:
        size: height and width of the picture.
        ground: colours [H', W', 3]; repeats at its edges.
        camera: shift of the ground (y, x) in pixels, angle in radians and zoom of each frame, [T, 4].
        bodies: bodies with ids 1..K, from the lowest to the topmost.
    """

    size: tuple[int, int]
    ground: Field
    camera: npt.NDArray[np.float64]
    bodies: tuple[Body, ...]


def render(scene: Scene, t: int) -> tuple[Field, ObjectMask]:
    """Render a frame under even light: colours, float32 [H, W, 3], and ids, uint8 [H, W]."""
    picture = _view(scene.ground, scene.camera[t], scene.size)
    mask = np.zeros(scene.size, dtype=np.uint8)
    for k, body in enumerate(scene.bodies, start=1):
        _cast_shadow(picture, body, t)
        _paint(picture, mask, k, body, t)
    return picture, mask


def _view(ground: Field, camera: npt.NDArray[np.float64], size: tuple[int, int]) -> Field:
    shift_y, shift_x, angle, zoom = camera
    y, x = np.indices(size, dtype=np.float32)
    y, x = (y - size[0] / 2) / np.float32(zoom), (x - size[1] / 2) / np.float32(zoom)
    sine, cosine = np.float32(np.sin(angle)), np.float32(np.cos(angle))
    return sample(ground, y * cosine + x * sine + np.float32(shift_y), x * cosine - y * sine + np.float32(shift_x))


def lamp(size: tuple[int, int]) -> Field:
    """Brighter where the light comes from, darker in the corners, [H, W, 1]."""
    y = np.linspace(-0.5, 0.5, size[0], dtype=np.float32)[:, None]
    x = np.linspace(-0.5, 0.5, size[1], dtype=np.float32)
    brightness = 1.06 - 0.16 * (x + y) - 0.35 * (x * x + y * y)
    return brightness[..., None].astype(np.float32)


@dataclass(frozen=True)
class _Window:
    """The part of the picture that a body may touch, in the body's polar coordinates."""

    rows: slice
    columns: slice
    angle: Field  # Of each pixel, seen from the centre; radians.
    inside: Field  # Distance to the outline, positive inside; pixels.
    share: Field  # Distance from the centre as a share of the outline's, at most 1.


def _window(body: Body, t: int, size: tuple[int, int], shift: tuple[float, float] = (0, 0)) -> _Window | None:
    """The pixels around a body, or None if it is outside the picture."""
    cy, cx = body.path[t] + shift
    reach = 1.7 * body.size + 2
    rows = slice(max(0, int(cy - reach)), min(size[0], int(cy + reach) + 1))
    columns = slice(max(0, int(cx - reach)), min(size[1], int(cx + reach) + 1))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return None
    dy, dx = np.arange(rows.start, rows.stop)[:, None] - cy, np.arange(columns.start, columns.stop) - cx
    angle, distance = np.arctan2(dy, dx).astype(np.float32), np.hypot(dy, dx).astype(np.float32)
    outline, change = np.ones_like(angle), np.zeros_like(angle)
    for harmonic, (swing, phase, pulse) in enumerate(zip(body.swing, body.phase, body.pulse, strict=True), start=2):
        argument = harmonic * (angle - np.float32(body.turn[t])) + np.float32(phase + pulse * t)
        outline += np.float32(swing) * np.cos(argument)
        change -= np.float32(harmonic * swing) * np.sin(argument)
    outline, change = outline * np.float32(body.size), change * np.float32(body.size)
    inside = (outline - distance) / np.sqrt(1 + (change / np.maximum(distance, 1)) ** 2)
    return _Window(rows, columns, angle, inside, np.minimum(distance / outline, 1))


def _cast_shadow(picture: Field, body: Body, t: int) -> None:
    drop = 0.20 * body.size
    window = _window(body, t, (picture.shape[0], picture.shape[1]), (drop, 0.85 * drop))
    if window is not None:
        dark = 0.62 * smoothstep(-0.8 * drop, 0.9 * drop, window.inside)
        picture[window.rows, window.columns] *= 1 - dark[..., None] * np.array([1, 0.97, 0.9], dtype=np.float32)


def _paint(picture: Field, mask: ObjectMask, k: int, body: Body, t: int) -> None:
    window = _window(body, t, (picture.shape[0], picture.shape[1]))
    if window is None:
        return
    mask[window.rows, window.columns][window.inside > 0] = k
    cover = np.clip(window.inside + 0.5, 0, 1)[..., None]
    under = picture[window.rows, window.columns]
    under += (_shaded(body, t, window) - under) * cover


def _shaded(body: Body, t: int, window: _Window) -> Field:
    """Colours of a body: a flattened dome with small bumps, lit by a lamp and the sky."""
    turn = np.float32(body.turn[t])
    middle = body.coat.shape[0] / 2
    radius = middle * 0.95 * np.arcsin(window.share) * (2 / np.pi)
    along = window.angle - turn
    coat = sample(body.coat, middle + radius * np.sin(along), middle + radius * np.cos(along))
    colour, down, across = coat[..., :3], coat[..., 3], coat[..., 4]
    steep = window.share**1.6
    bump = np.float32(0.28)
    ny = steep * np.sin(window.angle) - bump * (across * np.sin(turn) + down * np.cos(turn))
    nx = steep * np.cos(window.angle) - bump * (across * np.cos(turn) - down * np.sin(turn))
    nz = np.sqrt(np.maximum(1 - steep * steep, 0.02))
    length = np.sqrt(nx * nx + ny * ny + nz * nz)
    towards_light = (nx * LIGHT[0] + ny * LIGHT[1] + nz * LIGHT[2]) / length
    halfway = LIGHT + np.array([0, 0, 1])  # Between the light and the eye.
    halfway /= np.linalg.norm(halfway)
    mirror = np.clip((nx * halfway[0] + ny * halfway[1] + nz * halfway[2]) / length, 0, 1)
    light = 0.42 + 0.14 * (1 - ny / length) / 2 + 0.75 * np.clip(towards_light, 0, 1)
    rim = 0.10 * (1 - nz / length) ** 2
    lit: Field = (colour * light[..., None] + (body.gloss * mirror**48 + rim)[..., None]).astype(np.float32)
    return lit
