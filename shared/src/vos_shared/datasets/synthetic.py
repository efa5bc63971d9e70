"""Synthetic clips with exact ids: the built-in demo, and training data without a download.

Textured bodies move over a moving ground, turn, deform and occlude each other, with light from the upper left and
shadows to the lower right. The edges in the picture are blended as by a camera, those in the masks are not: an id names
the body at the pixel's centre.
"""

from __future__ import annotations

import errno
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.fft import next_fast_len
from tqdm import trange

from vos_shared.atomic import atomic_path, write_text
from vos_shared.datasets.synthetic_rendering import Body, Scene, lamp, render
from vos_shared.datasets.synthetic_textures import COATS, GROUNDS, Field, Palette, noise, ramp, slopes
from vos_shared.errors import UserError
from vos_shared.images import MAX_SIDE
from vos_shared.masks import write_mask
from vos_shared.results import partial_folder

_COLOURS: Final = (
    (("7d1d1a", "c9362c", "e8604a"), ("1c1413", "3a2620")),  # Ladybird.
    (("b5761a", "eaa82f", "f7cf6b"), ("4a2a12", "6b4020")),  # Bee.
    (("d8cfc0", "efe8da", "fffaf0"), ("25282d", "4a4d52")),  # Zebra.
    (("17506e", "2b86a8", "6fc0cf"), ("e9e2c4", "fbf6e2")),  # Parrotfish.
    (("5a2a6b", "8d4a9c", "c285c4"), ("f2c46d", "f9e2a8")),  # Orchid.
    (("c9541f", "ee7f33", "f9ab66"), ("f6efe2", "ffffff")),  # Clownfish.
    (("0e5f4e", "239077", "69c29f"), ("0b2b33", "17444b")),  # Beetle.
    (("b23f6a", "de6f93", "f3a9bb"), ("6b1a3e", "8c2b52")),  # Rose.
)
"""Colour ramps of the coat and of the markings of a body."""


def clip(
    seed: int,
    *,
    frames: int = 24,
    size: tuple[int, int] = (240, 432),
    objects: int = 3,
    late: int = 0,
    leaving: int = 0,
    ground: str | None = None,
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Render a clip.

    Args:
        seed: equal seeds and settings give equal clips.
        frames: number T of frames.
        size: height and width in pixels.
        objects: number K of objects; all but the late ones are in the first frame.
        late: number of objects, the last ones, that enter after a third of the clip.
        leaving: number of objects, the first ones, that have left in the last third.
        ground: one of `GROUNDS`; by default the seed chooses.

    Returns:
        Frames, uint8 RGB [T, H, W, 3], and ids 0..K, uint8 [T, H, W]; a higher id occludes a lower one.

    Raises:
        UserError: the settings are invalid.
    """
    _check(frames, size, objects, late, leaving)
    if seed < 0:
        raise UserError(f"a clip of seed {seed}; seeds are 0 or more")
    if ground is not None and ground not in GROUNDS:
        raise UserError(f"no ground is called {ground!r}; there is {', '.join(GROUNDS)}")
    rng = np.random.default_rng(seed)
    name = ground or list(GROUNDS)[rng.integers(len(GROUNDS))]
    scene = Scene(
        size, _ground(rng, size, name), _camera(rng, frames, size), _bodies(rng, frames, size, objects, late, leaving)
    )
    brightness = lamp(size)
    pictures = np.empty((frames, *size, 3), dtype=np.uint8)
    masks = np.empty((frames, *size), dtype=np.uint8)
    for t in range(frames):
        picture, masks[t] = render(scene, t)
        picture *= brightness
        picture += 0.008 * rng.standard_normal((*size, 1), dtype=np.float32)  # Sensor noise.
        pictures[t] = np.clip(picture, 0, 1) * 255 + 0.5
    return pictures, masks


def write_davis_tree(
    root: str | Path,
    *,
    clips: int = 3,
    train_clips: int = 0,
    frames: int = 24,
    size: tuple[int, int] = (240, 432),
    seed: int = 0,
    objects: int = 3,
    late: int = 0,
    leaving: int = 0,
) -> list[str]:
    """Write clips as a DAVIS folder, with a resolution folder such as ``240p`` for a height of 240.

    The lists of sequences are written last, so that a folder with `ImageSets` is complete.

    Args:
        root: the folder; created if missing, existing files are replaced.
        clips: number of sequences in the list ``val``.
        train_clips: number of further sequences in the list ``train``.
        frames: as in `clip`, also `size`, `objects`, `late` and `leaving`.
        size: height and width in pixels.
        seed: seed of the clips.
        objects: number of objects.
        late: number of objects that enter late.
        leaving: number of objects that leave.

    Returns:
        Names of the sequences, those of ``val`` first.

    Raises:
        UserError: the settings are invalid.
    """
    if clips < 1 or train_clips < 0:
        raise UserError(f"{clips} clips and {train_clips} for training: at least one clip is needed")
    names = []
    for number in trange(clips + train_clips, desc="rendering", unit="clip", disable=None, leave=False):
        ground = list(GROUNDS)[number % len(GROUNDS)]
        names.append(f"{ground}-{number}")
        pictures, masks = clip(
            10_000 * seed + number, frames=frames, size=size, objects=objects, late=late, leaving=leaving, ground=ground
        )
        _write_sequence(Path(root), f"{size[0]}p", names[-1], pictures, masks)
    for year in ("2016", "2017"):
        write_text(Path(root, "ImageSets", year, "val.txt"), "\n".join(names[:clips]) + "\n")
        if train_clips:
            write_text(Path(root, "ImageSets", year, "train.txt"), "\n".join(names[clips:]) + "\n")
    return names


def write_new_davis_tree(root: str | Path, **settings: Any) -> list[str]:
    """Write clips as `write_davis_tree` does, atomically.

    Args:
        root: a folder that does not exist or is empty.
        settings: arguments of `write_davis_tree`.

    Returns:
        Names of the sequences.

    Raises:
        UserError: the folder is not empty (another process may have written it), or the settings are invalid.
    """
    root = Path(root).absolute()
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UserError(f"{root} is there already and not empty; choose another folder")
    try:
        with partial_folder(root.parent, "clips") as partial:
            names = write_davis_tree(partial, **settings)
            _put(partial, root)
    finally:
        with suppress(OSError):  # Not empty if another process writes there.
            (root.parent / ".partial").rmdir()
    return names


def _put(partial: Path, root: Path) -> None:
    try:
        partial.replace(root)
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
            raise
        raise UserError(f"{root} was written by another process meanwhile; choose another folder") from None


def _write_sequence(
    root: Path, resolution: str, name: str, pictures: npt.NDArray[np.uint8], masks: npt.NDArray[np.uint8]
) -> None:
    folders = root / "JPEGImages" / resolution / name, root / "Annotations" / resolution / name
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    for t, (picture, mask) in enumerate(zip(pictures, masks, strict=True)):
        with atomic_path(folders[0] / f"{t:05d}.jpg") as temporary:
            Image.fromarray(picture).save(temporary, format="JPEG", quality=92, subsampling="4:4:4")
        write_mask(folders[1] / f"{t:05d}.png", mask)


def _check(frames: int, size: tuple[int, int], objects: int, late: int, leaving: int) -> None:
    if max(size) > MAX_SIDE:
        raise UserError(f"a clip of {size[0]}x{size[1]} is too large; {MAX_SIDE} pixels a side are the most")
    if frames < 1 or min(size) < 16:
        raise UserError(f"a clip of {frames} frames of {size[0]}x{size[1]} is too small; 1 frame of 16x16 is the least")
    if not 1 <= objects <= 254:
        raise UserError(f"a clip of {objects} objects; there must be 1 to 254")
    if min(late, leaving) < 0 or late + leaving > objects or late == objects:
        raise UserError(f"{late} late and {leaving} leaving of {objects} objects; one must be there from the start")
    if (late or leaving) and frames < 3:
        raise UserError(f"a clip of {frames} frames has no time for objects to come or go; 3 is the least")


def _ground(rng: np.random.Generator, size: tuple[int, int], name: str) -> Field:
    """The ground; 1.5 times as large as the picture, so that its repetition is not visible."""
    height, width = (next_fast_len(int(1.5 * side)) for side in size)
    return GROUNDS[name](rng, (height, width))


def _camera(rng: np.random.Generator, frames: int, size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Motion of a hand-held camera: steady drift, slight sway, rotation and zoom."""
    t = np.arange(frames)
    heading, phase = rng.uniform(0, 2 * np.pi, 2)
    drift = 0.005 * min(size) * t
    sway = 0.006 * min(size) * np.sin(0.35 * t + phase)
    angle = rng.uniform(-0.003, 0.003) * t
    zoom = 1 + 0.04 * np.sin(0.05 * t + phase)
    return np.stack([drift * np.sin(heading) + sway, drift * np.cos(heading) - sway, angle, zoom], axis=1)


def _bodies(
    rng: np.random.Generator, frames: int, size: tuple[int, int], objects: int, late: int, leaving: int
) -> tuple[Body, ...]:
    extent = np.array(size, dtype=float)
    mean = 0.19 * min(size) * min(1.0, (3 / objects) ** 0.5)
    radii = mean * rng.uniform(0.8, 1.15, objects)
    places = _spread(rng, extent, radii)
    goals = np.roll(places, -1, axis=0) if objects > 1 else extent - places
    looks = rng.permutation(len(_COLOURS))
    bodies = []
    for k, radius in enumerate(radii):
        if k >= objects - late:
            path = _entering(frames, extent, places[k], radius)
        elif k < leaving:
            path = _entering(frames, extent, places[k], radius)[::-1]
        else:
            path = _wandering(rng, frames, extent, places[k], goals[k])
        bodies.append(_body(rng, float(radius), path, _COLOURS[looks[k % len(looks)]]))
    return tuple(bodies)


def _body(
    rng: np.random.Generator, size: float, path: npt.NDArray[np.float64], colours: tuple[Palette, Palette]
) -> Body:
    harmonics = np.arange(2, 6)
    return Body(
        size=size,
        path=path,
        turn=rng.uniform(0, 2 * np.pi) + rng.choice([-1, 1]) * rng.uniform(0.01, 0.05) * np.arange(len(path)),
        swing=rng.uniform(0.1, 0.26, len(harmonics)) / harmonics,
        phase=rng.uniform(0, 2 * np.pi, len(harmonics)),
        pulse=rng.uniform(-0.16, 0.16, len(harmonics)),
        coat=_coat(rng, max(12, int(2.6 * size)), colours),
        gloss=float(rng.uniform(0.15, 0.55)),
    )


def _spread(
    rng: np.random.Generator, extent: npt.NDArray[np.float64], radii: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Positions (y, x) in the picture that are far apart, [K, 2]: for each, the best of many random ones."""
    places = np.empty((len(radii), 2))
    for k, radius in enumerate(radii):
        tries = rng.uniform(radius, extent - radius, (40, 2))
        distance = np.linalg.norm(tries[:, None] - places[:k], axis=2).min(axis=1) if k else np.ones(len(tries))
        places[k] = tries[distance.argmax()]
    return places


def _wandering(
    rng: np.random.Generator,
    frames: int,
    extent: npt.NDArray[np.float64],
    start: npt.NDArray[np.float64],
    goal: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Path (y, x), [T, 2], in an arc towards a goal, at most 1.8 % of the picture's short side a frame."""
    way = goal - start
    share = min(1.0, 0.018 * extent.min() * frames / max(float(np.linalg.norm(way)), 1.0))
    t = np.linspace(0, 1, frames)[:, None]
    across = way[::-1] * (-1, 1) * rng.uniform(-0.25, 0.25)
    path: npt.NDArray[np.float64] = start + share * (way * t + across * np.sin(np.pi * t))
    return path


def _entering(
    frames: int, extent: npt.NDArray[np.float64], goal: npt.NDArray[np.float64], radius: float
) -> npt.NDArray[np.float64]:
    """Path (y, x), [T, 2]: outside the picture for a third of the clip, then from the nearer side to the goal."""
    side = -1.8 * radius if goal[1] < extent[1] / 2 else extent[1] + 1.8 * radius
    t = np.clip((np.arange(frames) + 1) / frames * 1.5 - 0.5, 0, 1)[:, None]
    outside = np.array([goal[0], side])
    path: npt.NDArray[np.float64] = outside + (goal - outside) * np.sin(t * np.pi / 2)
    return path


def _coat(rng: np.random.Generator, side: int, colours: tuple[Palette, Palette]) -> Field:
    """Colours (3 channels) and slopes of the bumps down and across, [side, side, 5]."""
    marks = COATS[int(rng.integers(len(COATS)))](rng, side)
    tone = 0.7 * noise(rng, (side, side), 3, slope=2) + 0.3 * noise(rng, (side, side), 20, slope=1)
    own, other = (ramp(palette, tone) for palette in colours)
    colour = own + (other - own) * marks[..., None]
    down, across = slopes((0.9 * marks + 1.2 * noise(rng, (side, side), 14, slope=1.5)).astype(np.float32))
    return np.concatenate([colour, down[..., None], across[..., None]], axis=2)
