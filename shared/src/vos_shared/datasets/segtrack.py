"""SegTrack v2 (Li et al., ICCV 2013): 14 videos, masks of every frame, several objects in some.

`JPEGImages/<video>/<frame>.png` (or bmp, jpg) are the frames, `GroundTruth/<video>/<frame>.png` the masks; of videos
with several objects `GroundTruth/<video>/<object>/<frame>.png`, objects from 1. Suffixes of frame and mask may differ.
So say public readers of the data set; the archive itself was not at hand.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from vos_shared.datasets.image_sets import refuse_resolution
from vos_shared.datasets.names import choose, read_lines
from vos_shared.datasets.saliency import read_saliency_mask
from vos_shared.datasets.sequence import VideoSequence
from vos_shared.errors import BadDataset, BadMask
from vos_shared.masks import describe_size
from vos_shared.method import ObjectMask
from vos_shared.video import Video
from vos_shared.video_sources import frame_files


def segtrack_v2(
    root: str | Path,
    split: str | Path | None = None,
    *,
    resolution: str | None = None,
    sequences: Iterable[str] | None = None,
) -> list[VideoSequence]:
    """SegTrack v2; object k of a video is the folder `<video>/<k>` of its masks.

    Args:
        root: folder that holds `JPEGImages` and `GroundTruth`.
        split: path of a list of videos; by default all folders of `JPEGImages`.
        resolution: there is one only; must be None.
        sequences: only these.

    Raises:
        BadDataset: with everything that is missing.
    """
    root = Path(root)
    refuse_resolution(resolution, "SegTrack v2")
    if missing := [name for name in ("JPEGImages", "GroundTruth") if not (root / name).is_dir()]:
        raise BadDataset(f"{root} is no SegTrack v2 folder: it lacks {' and '.join(missing)}")
    if split is None:
        names = sorted(path.name for path in (root / "JPEGImages").iterdir() if path.is_dir() and path.name[0] != ".")
        where = str(root / "JPEGImages")
    else:
        names, where = [line.lstrip("*") for line in read_lines(Path(split))], str(split)
    faults: list[str] = []
    found = [_sequence(root, name, faults) for name in choose(names, where, sequences)]
    if faults:
        raise BadDataset(f"{root} lacks {'; '.join(faults)}")
    return [sequence for sequence in found if sequence is not None]


def _sequence(root: Path, name: str, faults: list[str]) -> VideoSequence | None:
    """The sequence, or None after noting what it lacks."""
    images, truth = root / "JPEGImages" / name, root / "GroundTruth" / name
    frames = frame_files(images) if images.is_dir() else []
    if not frames:
        faults.append(f"frames of {name} ({images})")
    folders = _object_folders(truth)
    masks = {path.stem: path for path in (frame_files(folders[0]) if folders else [])}
    if not masks:
        faults.append(f"masks of {name} ({truth})")
    elif lacking := [path.stem for path in frames if path.stem not in masks]:
        faults.append(f"masks of {', '.join(lacking[:3])}{', ..' if lacking[3:] else ''} of {name} ({folders[0]})")
    if not frames or not masks:
        return None
    annotations = {path.stem: masks[path.stem] for path in frames if path.stem in masks}
    several = folders[0] != truth
    read = read_objects if several else read_saliency_mask
    return VideoSequence(name, Video.from_files(frames, name=name), annotations, binary=not several, read=read)


def _object_folders(truth: Path) -> list[Path]:
    """The folder of each object's masks, or the one that holds the only object's."""
    if not truth.is_dir():
        return []
    numbered = [path for path in truth.iterdir() if path.is_dir() and path.name.isdecimal()]
    return sorted(numbered, key=lambda path: int(path.name)) or [truth]


def read_objects(path: Path) -> ObjectMask:
    """Ids of all objects of a frame, uint8 [H, W], from the mask of the first: `<video>/1/<frame>.png`.

    Where masks overlap, the object of the higher number is seen.

    Raises:
        BadMask: the mask of an object is missing, cannot be read, or is not of the others' size.
    """
    mask: ObjectMask | None = None
    for folder in _object_folders(path.parents[1]):
        file = next((file for file in folder.glob(f"{path.stem}.*") if not file.name.startswith(".")), None)
        if file is None:
            raise BadMask(f"{folder} lacks the mask of frame {path.stem}")
        one = read_saliency_mask(file)
        mask = np.zeros_like(one) if mask is None else mask
        if one.shape != mask.shape:
            raise BadMask(
                f"mask {file} is {describe_size(one.shape)}, that of another object {describe_size(mask.shape)}"
            )
        mask[one > 0] = int(folder.name)
    if mask is None:
        raise BadMask(f"mask {path} does not exist")
    return mask
