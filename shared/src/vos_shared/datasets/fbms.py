"""FBMS-59 (Ochs, Malik, Brox, PAMI 2014): videos of which some frames have masks, often of several objects.

`<split>/<video>/*.jpg` are the frames, `<split>` is `Trainingset` or `Testset`; `<split>/<video>/GroundTruth` holds
masks of some: `<video>_<number>_gt.ppm` in colours on white, `<video><number>.pgm` in greys on black, or, in later
copies, `<number>_gt.png`. Files `*PROB_gt.ppm` are no masks. So say public readers of the data set, the archive itself
was not at hand. Black, and white in a colour file, is taken as background; each other colour is an object. A number
outside those of the frames is taken as the nearest frame, as those readers do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vos_shared.datasets.image_sets import refuse_resolution
from vos_shared.datasets.names import choose
from vos_shared.datasets.sequence import VideoSequence
from vos_shared.errors import BadDataset, BadMask
from vos_shared.images import open_image
from vos_shared.method import ObjectMask
from vos_shared.video import Video
from vos_shared.video_sources import frame_files

_SUFFIXES: Final = frozenset({".ppm", ".pgm", ".png"})
_MANY_COLOURS: Final = 64
_WHITE: Final = 0xFFFFFF


def fbms59(
    root: str | Path,
    split: str = "Testset",
    *,
    resolution: str | None = None,
    sequences: Iterable[str] | None = None,
) -> list[VideoSequence]:
    """FBMS-59; objects are numbered by colour, alike in all frames of a video.

    Args:
        root: folder that holds `Testset` and `Trainingset`.
        split: one of the two.
        resolution: there is one only; must be None.
        sequences: of the split, only these.

    Raises:
        BadDataset: with everything that is missing.
    """
    root = Path(root)
    refuse_resolution(resolution, "FBMS-59")
    folder = root / split
    if not folder.is_dir():
        there = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
        raise BadDataset(f"{root} has no folder {split}; it holds {', '.join(there) or 'no folder'}")
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    faults: list[str] = []
    found = [_sequence(folder, name, faults) for name in choose(names, str(folder), sequences)]
    if faults:
        raise BadDataset(f"{folder} lacks {'; '.join(faults)}")
    return [sequence for sequence in found if sequence is not None]


def _sequence(folder: Path, name: str, faults: list[str]) -> VideoSequence | None:
    """The sequence, or None after noting what it lacks."""
    frames, truth = frame_files(folder / name), folder / name / "GroundTruth"
    masks = _mask_files(truth) if truth.is_dir() else []
    if not frames:
        faults.append(f"frames of {name} ({folder / name})")
    if not masks:
        faults.append(f"masks of {name} ({truth})")
    if not frames or not masks:
        return None
    numbers = {_number(path, name): path.stem for path in frames}
    if None in numbers or None in {_number(path, name) for path in masks}:
        faults.append(f"numbers in the names of the files of {name}")
        return None
    by_frame = {_nearest(numbers, _number(path, name)): path for path in masks}
    annotations = {path.stem: by_frame[path.stem] for path in frames if path.stem in by_frame}
    read = partial(read_coloured, files=tuple(masks))
    return VideoSequence(name, Video.from_files(frames, name=name), annotations, read=read)


def _mask_files(truth: Path) -> list[Path]:
    """Masks of one of the kinds, the first that is there."""
    files = [path for path in sorted(truth.iterdir()) if path.suffix.lower() in _SUFFIXES and path.name[0] != "."]
    masks = [path for path in files if not path.stem.endswith("PROB_gt")]
    for suffix in (".ppm", ".pgm", ".png"):
        if chosen := [path for path in masks if path.suffix.lower() == suffix]:
            return chosen
    return []


def _number(path: Path, video: str) -> int | None:
    """Number of a frame, which stands after the video's name (that may hold digits, too)."""
    numbers = re.findall(r"\d+", path.stem.removeprefix(video).removesuffix("_gt"))
    return int(numbers[-1]) if numbers else None


def _nearest(numbers: dict[int | None, str], wanted: int | None) -> str:
    nearest = min((number for number in numbers if number is not None), key=lambda number: abs(number - (wanted or 0)))
    return numbers[nearest]


def read_coloured(path: Path, files: tuple[Path, ...]) -> ObjectMask:
    """Ids of a frame's objects, uint8 [H, W].

    Args:
        path: the mask.
        files: all masks of the video; the colours in them, sorted, are objects 1, 2, ..

    Raises:
        BadMask: one of them cannot be read, or they hold too many colours for object masks.
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
    """One number for each colour, int64 [H, W]; 0 for background."""
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
