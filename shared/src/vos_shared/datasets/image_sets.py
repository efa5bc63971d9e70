"""What data sets of single images share: each image is a `VideoSequence` of one frame, both of the image's name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from vos_shared.datasets.names import choose, read_lines
from vos_shared.datasets.sequence import VideoSequence
from vos_shared.errors import BadDataset
from vos_shared.method import ObjectMask
from vos_shared.video import Video
from vos_shared.video_sources import FRAME_SUFFIXES

_LISTED = 5
"""So many names of what is missing are written out."""


def images_in(folder: Path, suffixes: Iterable[str] = FRAME_SUFFIXES) -> dict[str, Path]:
    """The image files of a folder by name without suffix, in alphabetical order; hidden files are left out.

    Raises:
        BadDataset: two files of one name.
    """
    wanted = frozenset(suffixes)
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in wanted and not path.name.startswith("."))
    named: dict[str, Path] = {}
    for path in files:
        if path.stem in named:
            raise BadDataset(f"{folder} holds {named[path.stem].name} and {path.name}, whose masks would collide")
        named[path.stem] = path
    return named


def listed(split: Path, names: Iterable[str], sequences: Iterable[str] | None) -> list[str]:
    """The images that a list file names, or the chosen ones of them.

    Args:
        split: the list, a name a line.
        names: of the images that are there.
        sequences: only these.

    Raises:
        BadDataset: no such list, or it names images that are not there.
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
    images: Mapping[str, Path],
    masks: Mapping[str, Path],
    read: Callable[[Path], ObjectMask],
    *,
    binary: bool,
) -> list[VideoSequence]:
    """A sequence of one frame for each image; those that have no mask in `masks` have no annotation."""
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
    """Refuse images without a mask, and masks without an image.

    Raises:
        BadDataset: naming some of both, and how many there are.
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
    """``3 images (a, b, c)``, at most five of them by name."""
    more = ", .." if len(names) > _LISTED else ""
    return f"{len(names)} {what}{'' if len(names) == 1 else 's'} ({', '.join(names[:_LISTED])}{more})"


def refuse_resolution(resolution: str | None, what: str) -> None:
    """Refuse a resolution where the data set has no folders of resolutions.

    Raises:
        BadDataset: one is given.
    """
    if resolution is not None:
        raise BadDataset(f"{what} has no resolution folders; leave out resolution {resolution}")
