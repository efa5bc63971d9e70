"""SegTrack v2 (Li et al., ICCV 2013): 14 videos, some with several objects, with masks of every frame.

Frames are `JPEGImages/<video>/<frame>.png` (or bmp, jpg), masks `GroundTruth/<video>/<frame>.png`; in videos with
several objects, `GroundTruth/<video>/<object>/<frame>.png` with objects from 1. Suffixes of frame and mask may differ.
This layout follows public readers of the data set; the archive itself was not available.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np

from vos_shared.datasets.names import choose, frames_in, load_all, read_lines
from vos_shared.datasets.saliency import read_saliency_mask
from vos_shared.datasets.sequence import VideoSequence
from vos_shared.errors import BadDataset, BadMask
from vos_shared.folders import subfolders
from vos_shared.masks import describe_size
from vos_shared.method import ObjectMask
from vos_shared.tables import listed
from vos_shared.video import Video
from vos_shared.video_sources import frame_files


def segtrack_v2(
    root: str | Path, split: str | Path | None = None, *, sequences: Iterable[str] | None = None
) -> list[VideoSequence]:
    """Load SegTrack v2; the masks of object k are in the folder `<video>/<k>`.

    Args:
        root: folder that holds `JPEGImages` and `GroundTruth`.
        split: path of a list of videos; by default all folders of `JPEGImages`.
        sequences: load only these videos.

    Raises:
        BadDataset: names all that is missing.
    """
    root = Path(root)
    if missing := [name for name in ("JPEGImages", "GroundTruth") if not (root / name).is_dir()]:
        raise BadDataset(f"{root} is not a SegTrack v2 folder: it lacks {' and '.join(missing)}")
    if split is None:
        names, where = [path.name for path in subfolders(root / "JPEGImages")], str(root / "JPEGImages")
    else:
        names, where = [line.lstrip("*") for line in read_lines(Path(split))], str(split)
    return load_all(root, choose(names, where, sequences), partial(_sequence, root))


def _sequence(root: Path, name: str, missing: list[str]) -> VideoSequence | None:
    """The sequence, or None after noting what it lacks."""
    frames, truth = frames_in(root / "JPEGImages" / name, missing), root / "GroundTruth" / name
    folders = _object_folders(truth)
    masks = {path.stem: path for path in (frame_files(folders[0]) if folders else [])}
    if not masks:
        missing.append(f"masks of {name} ({truth})")
    elif lacking := [path.stem for path in frames if path.stem not in masks]:
        missing.append(f"masks of {listed(lacking, most=3)} of {name} ({folders[0]})")
    if not frames or not masks:
        return None
    annotations = {path.stem: masks[path.stem] for path in frames if path.stem in masks}
    several = folders[0] != truth
    read = read_objects if several else read_saliency_mask
    return VideoSequence(name, Video.from_files(frames, name=name), annotations, binary=not several, read=read)


def _object_folders(truth: Path) -> list[Path]:
    """Folders of masks of each object, or the one folder of the only object."""
    if not truth.is_dir():
        return []
    numbered = [path for path in truth.iterdir() if path.is_dir() and path.name.isdecimal()]
    return sorted(numbered, key=lambda path: int(path.name)) or [truth]


def read_objects(path: Path) -> ObjectMask:
    """Read the ids of all objects of a frame, uint8 [H, W]; where masks overlap, the highest id wins.

    Args:
        path: mask of the first object, `<video>/1/<frame>.png`.

    Raises:
        BadMask: the mask of an object is missing, cannot be read, or differs in size.
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
