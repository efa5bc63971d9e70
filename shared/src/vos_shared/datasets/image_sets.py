"""Data sets of single images: each image is a `VideoSequence` of one frame, with the name of the image."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from vos_shared.datasets.names import choose, read_lines
from vos_shared.datasets.sequence import VideoSequence
from vos_shared.errors import BadDataset
from vos_shared.method import ObjectMask
from vos_shared.tables import listed
from vos_shared.video import Video
from vos_shared.video_sources import FRAME_SUFFIXES


def images_in(folder: Path) -> dict[str, Path]:
    """Image files of a folder by name without suffix, in alphabetical order, without hidden files.

    Raises:
        BadDataset: two files have the same name.
    """
    files = (path for path in folder.iterdir() if path.suffix.lower() in FRAME_SUFFIXES and path.name[0] != ".")
    named: dict[str, Path] = {}
    for path in sorted(files):
        if path.stem in named:
            raise BadDataset(f"{folder} holds {named[path.stem].name} and {path.name}, whose masks would collide")
        named[path.stem] = path
    return named


def names_in_split(split: Path, names: Iterable[str], sequences: Iterable[str] | None) -> list[str]:
    """Names of images in a list.

    Args:
        split: the list, one name a line.
        names: names of the images in the data set.
        sequences: choose only these names.

    Raises:
        BadDataset: the list is missing, or it names images that are missing.
    """
    if not split.is_file():
        raise BadDataset(f"no list of images {split}; leave out the split, or give the path of a list, a name a line")
    wanted, there = choose(read_lines(split), str(split), sequences), set(names)
    if missing := [name for name in wanted if name not in there]:
        raise BadDataset(
            f"{split} names {some(missing, 'image')} that {'is' if len(missing) == 1 else 'are'} not there"
        )
    return wanted


def image_sequences(
    images: Mapping[str, Path], masks: Mapping[str, Path], read: Callable[[Path], ObjectMask], *, binary: bool
) -> list[VideoSequence]:
    """Make a sequence of one frame from each image; images that are not in `masks` have no annotation."""
    return [
        VideoSequence(
            name,
            Video.from_files([path], name=name, origin=path),
            {path.stem: masks[name]} if name in masks else {},
            binary=binary,
            read=read,
        )
        for name, path in images.items()
    ]


def require_pairs(root: Path, images: Mapping[str, Path], masks: Mapping[str, Path]) -> None:
    """Check that every image has a mask, and every mask an image.

    Raises:
        BadDataset: there is no image, an image without a mask, or a mask without an image.
    """
    if not images:
        raise BadDataset(f"{root} holds no image")
    faults = []
    if lacking := [name for name in images if name not in masks]:
        faults.append(f"{some(lacking, 'image')} without a mask")
    if strays := [name for name in masks if name not in images]:
        faults.append(f"{some(strays, 'mask')} without an image")
    if faults:
        raise BadDataset(f"{root} holds {len(images)} images; {' and '.join(faults)}")


def some(names: list[str], what: str) -> str:
    """``3 images (a, b, c)``; names the first five."""
    return f"{len(names)} {what}{'' if len(names) == 1 else 's'} ({listed(names, most=5)})"
