"""FBMS-59 (Ochs, Malik, Brox, PAMI 2014): videos with masks of some frames, often of several objects.

Frames are `<split>/<video>/*.jpg`, where `<split>` is `Trainingset` or `Testset`. Masks are in
`<split>/<video>/GroundTruth`: `<video>_<number>_gt.ppm` in colours on white, `<video><number>.pgm` in greys on black,
or, in later copies, `<number>_gt.png`; files `*PROB_gt.ppm` are not masks. Black, and white in a colour file, is
background; every other colour is an object. A mask whose number is not that of a frame belongs to the nearest frame.
This layout follows public readers of the data set; the archive itself was not available.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vos_shared.datasets.names import choose, frames_in, load_all
from vos_shared.datasets.sequence import VideoSequence
from vos_shared.errors import BadDataset, BadMask
from vos_shared.folders import subfolders
from vos_shared.images import open_image
from vos_shared.method import ObjectMask
from vos_shared.tables import listed
from vos_shared.video import Video

_SUFFIXES: Final = frozenset({".ppm", ".pgm", ".png"})
_MANY_COLOURS: Final = 64
_WHITE: Final = 0xFFFFFF


def fbms59(root: str | Path, split: str = "Testset", *, sequences: Iterable[str] | None = None) -> list[VideoSequence]:
    """Load FBMS-59; a colour has the same object id in all frames of a video.

    Args:
        root: folder that holds `Testset` and `Trainingset`.
        split: ``Testset`` or ``Trainingset``.
        sequences: load only these videos of the split.

    Raises:
        BadDataset: names all that is missing.
    """
    root = Path(root)
    folder = root / split
    if not folder.is_dir():
        there = listed(path.name for path in subfolders(root))
        raise BadDataset(f"{root} has no folder {split}; it holds {there or 'no folder'}")
    names = choose((path.name for path in subfolders(folder)), str(folder), sequences)
    return load_all(folder, names, partial(_sequence, folder))


def _sequence(folder: Path, name: str, missing: list[str]) -> VideoSequence | None:
    """The sequence, or None after noting what it lacks."""
    frames, truth = frames_in(folder / name, missing), folder / name / "GroundTruth"
    masks = _mask_files(truth) if truth.is_dir() else []
    if not masks:
        missing.append(f"masks of {name} ({truth})")
    if not frames or not masks:
        return None
    numbers = {_number(path, name): path.stem for path in frames}
    if None in numbers or None in {_number(path, name) for path in masks}:
        missing.append(f"numbers in the names of the files of {name}")
        return None
    by_frame = {_nearest(numbers, _number(path, name)): path for path in masks}
    annotations = {path.stem: by_frame[path.stem] for path in frames if path.stem in by_frame}
    read = partial(read_coloured, files=tuple(masks))
    return VideoSequence(name, Video.from_files(frames, name=name), annotations, read=read)


def _mask_files(truth: Path) -> list[Path]:
    """Mask files of the first kind that is there."""
    files = [path for path in sorted(truth.iterdir()) if path.suffix.lower() in _SUFFIXES and path.name[0] != "."]
    masks = [path for path in files if not path.stem.endswith("PROB_gt")]
    for suffix in (".ppm", ".pgm", ".png"):
        if chosen := [path for path in masks if path.suffix.lower() == suffix]:
            return chosen
    return []


def _number(path: Path, video: str) -> int | None:
    """Number of a frame: the last in its name after the name of the video, which may contain digits."""
    numbers = re.findall(r"\d+", path.stem.removeprefix(video).removesuffix("_gt"))
    return int(numbers[-1]) if numbers else None


def _nearest(numbers: dict[int | None, str], wanted: int | None) -> str:
    nearest = min((number for number in numbers if number is not None), key=lambda number: abs(number - (wanted or 0)))
    return numbers[nearest]


def read_coloured(path: Path, files: tuple[Path, ...]) -> ObjectMask:
    """Read the object ids of a frame, uint8 [H, W].

    Args:
        path: the mask.
        files: all masks of the video; their colours in ascending order are the objects 1, 2, ..

    Raises:
        BadMask: a file cannot be read, or the files hold too many colours for object masks.
    """
    colours = _all_colours(files)
    values = _colours(path)
    mask = np.searchsorted(colours, values).clip(max=len(colours) - 1) + 1 if len(colours) else np.zeros(values.shape)
    is_object = np.isin(values, colours)
    return np.where(is_object, mask, 0).astype(np.uint8)


@cache
def _all_colours(files: tuple[Path, ...]) -> npt.NDArray[np.int64]:
    found: npt.NDArray[Any] = np.unique(np.concatenate([np.unique(_colours(path)) for path in files]))
    if len(found) > _MANY_COLOURS:
        raise BadMask(f"the masks beside {files[0]} hold {len(found):,} colours; are they JPEG files or anti-aliased?")
    return found[found > 0]


def _colours(path: Path) -> npt.NDArray[np.int64]:
    """Colours as numbers, int64 [H, W]; 0 is background."""
    with open_image(path, "mask", BadMask) as image:
        if image.mode in {"L", "P", "1"}:
            return np.array(image.convert("L") if image.mode == "1" else image, np.int64)
        values = np.array(image.convert("RGB"), np.int64)
    red, green, blue = np.moveaxis(values, 2, 0)
    if (red == green).all() and (red == blue).all() and np.isin(red, (0, 255)).all():
        return np.array(red > 0, np.int64)  # Black and white: the object is white.
    packed: npt.NDArray[np.int64] = red << 16 | green << 8 | blue
    packed[packed == _WHITE] = 0
    return packed
