"""DAVIS 2016 and 2017, and data sets of the same layout.

DAVIS has `JPEGImages/<resolution>/<sequence>`, `Annotations/<resolution>/<sequence>` and lists in `ImageSets`. MOSE,
LVOS and YouTube-VOS without `meta.json` have no resolution folders, and often no lists.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from vos_shared.datasets.names import Split, choose, frames_in, load_all, read_lines, strange_masks
from vos_shared.datasets.sequence import VideoSequence
from vos_shared.errors import BadDataset
from vos_shared.folders import mask_files, subfolders
from vos_shared.tables import listed
from vos_shared.video import Video
from vos_shared.video_sources import FRAME_SUFFIXES

Task = Literal["semi-supervised", "unsupervised"]

ANNOTATIONS: Final[Mapping[Task, str]] = {"semi-supervised": "Annotations", "unsupervised": "Annotations_unsupervised"}
"""Folder of masks for each task."""

_FRAME_AND_MASK = re.compile(r"/?JPEGImages/[^/\s]+/(?P<sequence>[^/\s]+)/\S+\s+/?Annotations/\S+")


def davis2016(
    root: str | Path,
    split: Split | None = None,
    *,
    resolution: str | None = None,
    sequences: Iterable[str] | None = None,
    masks_required: bool = True,
) -> list[VideoSequence]:
    """Load DAVIS-2016: one foreground object, to which all ids above 0 belong (annotations of 2017, masks of 0/255).

    Args:
        root: folder that holds `JPEGImages` and `Annotations`.
        split: list of sequences: `ImageSets/2016/<split>.txt`, else in the folder of the resolution, else of 2017. By
            default ``val``, or all sequences if there are neither resolution folders nor lists.
        resolution: folder below `JPEGImages`; by default ``480p``, or the only one.
        sequences: load only these sequences of the split.
        masks_required: False accepts a folder without `Annotations`.

    Raises:
        BadDataset: names all that is missing.
    """
    layout = _layout(root, "semi-supervised", resolution, masks_required)
    names = _sequence_names(layout, split, ("2016", layout.resolution, "2017"), sequences)
    return _load(layout, names, binary=True)


def davis2017(
    root: str | Path,
    split: Split | None = None,
    *,
    resolution: str | None = None,
    sequences: Iterable[str] | None = None,
    task: Task = "semi-supervised",
    masks_required: bool = True,
) -> list[VideoSequence]:
    """Load DAVIS-2017: several objects.

    Args:
        root: folder that holds `JPEGImages` and `Annotations`.
        split: list of sequences: `ImageSets/2017/<split>.txt`; by default as in `davis2016`.
        resolution: as in `davis2016`.
        sequences: as in `davis2016`.
        task: ``unsupervised`` reads `Annotations_unsupervised`, in which 255 is void.
        masks_required: as in `davis2016`.

    Raises:
        BadDataset: names all that is missing.
    """
    layout = _layout(root, task, resolution, masks_required)
    return _load(layout, _sequence_names(layout, split, ("2017", ""), sequences), binary=False)


@dataclass(frozen=True)
class _Layout:
    """Folders of a data set.

    Attributes:
        root: the data set.
        frames: folder that holds a folder of frames for each sequence.
        masks: the same for masks; None without masks.
        resolution: name of both; empty if `JPEGImages` holds the sequences directly.
    """

    root: Path
    frames: Path
    masks: Path | None
    resolution: str


def _layout(root: str | Path, task: Task, resolution: str | None, masks_required: bool) -> _Layout:
    root, annotations = Path(root), ANNOTATIONS[task]
    if not root.is_dir():
        raise BadDataset(f"no such folder: {root}")
    has_masks = masks_required or (root / annotations).is_dir()
    needed = ("JPEGImages", annotations) if has_masks else ("JPEGImages",)
    missing = [name for name in needed if not (root / name).is_dir()]
    if missing:
        raise BadDataset(f"{root} is not a DAVIS folder: it lacks {' and '.join(missing)}")
    resolution = _resolution(root, resolution)
    folders = [root / name / resolution for name in needed]
    missing = [str(folder.relative_to(root)) for folder in folders if not folder.is_dir()]
    if missing:
        raise BadDataset(f"{root} lacks {' and '.join(missing)}")
    return _Layout(root, folders[0], folders[1] if has_masks else None, resolution)


def _resolution(root: Path, wanted: str | None) -> str:
    found = resolutions(root)
    if found == [""]:
        if wanted:
            raise BadDataset(f"{root / 'JPEGImages'} has no folders of resolutions; leave out resolution {wanted}")
        return ""
    if wanted is not None:
        return wanted
    if "480p" in found:
        return "480p"
    if len(found) == 1:
        return found[0]
    raise BadDataset(
        f"{root / 'JPEGImages'} holds {listed(found)}; choose one with --resolution"
        if found
        else f"{root / 'JPEGImages'} is empty; it should hold a folder of sequences, such as 480p"
    )


def resolutions(root: Path) -> list[str]:
    """Names of the resolution folders in `JPEGImages`; one empty name if it holds the sequences directly."""
    folders = subfolders(root / "JPEGImages")
    sequences = [folder for folder in folders if _holds_frames(folder)]
    others = [inner for folder in folders if folder not in sequences for inner in subfolders(folder)]
    return [""] if sequences and not any(map(_holds_frames, others)) else [folder.name for folder in folders]


def _holds_frames(folder: Path) -> bool:
    return any(path.suffix.lower() in FRAME_SUFFIXES and not path.name.startswith(".") for path in folder.iterdir())


def split_lists(root: Path) -> list[Path]:
    """All lists of sequences in `ImageSets`."""
    return sorted([*root.glob("ImageSets/*/*.txt"), *root.glob("ImageSets/*.txt")])


def _sequence_names(
    layout: _Layout, split: Split | None, folders: tuple[str, ...], wanted: Iterable[str] | None
) -> list[str]:
    if split is None and not layout.resolution and not split_lists(layout.root):
        there = {path.name for folder in (layout.frames, layout.masks) if folder for path in subfolders(folder)}
        names, where = sorted(there), str(layout.frames)
    elif split is None or isinstance(split, (str, Path)):
        names, where = _listed(layout, split or "val", folders)
    else:
        names, where = list(split), "the sequences given"
    return choose(names, where, wanted)


def _listed(layout: _Layout, split: str | Path, folders: tuple[str, ...]) -> tuple[list[str], str]:
    candidates = [layout.root / "ImageSets" / folder / f"{split}.txt" for folder in folders]
    path = next((file for file in (*candidates, Path(split)) if file.is_file()), None)
    if path is None:
        there = [str(file.relative_to(layout.root)) for file in split_lists(layout.root)]
        raise BadDataset(
            f"no list of sequences for split {split}: {' and '.join(map(str, candidates))} not found; "
            f"there is {listed(there) or 'no list at all'}"
        )
    return names_in_list(path), str(path)


def names_in_list(path: Path) -> list[str]:
    """Names of the sequences in a list of names, or in a list of frames and masks, as in DAVIS-2016.

    Raises:
        BadDataset: the list cannot be read as text.
    """
    paths = [(_FRAME_AND_MASK.fullmatch(line), line) for line in read_lines(path)]
    return list(dict.fromkeys(match["sequence"] if match else line for match, line in paths))


def _load(layout: _Layout, names: list[str], *, binary: bool) -> list[VideoSequence]:
    folders = [layout.frames] if layout.masks is None else [layout.frames, layout.masks]
    there = {path.name for folder in folders for path in subfolders(folder)}
    what = "frames" if layout.masks is None else "frames and masks"

    def load(name: str, missing: list[str]) -> VideoSequence | None:
        if name in there:
            return _sequence(layout, name, binary, missing)
        missing.append(f"{what} of {name}")
        return None

    return load_all(layout.root, sorted(names, key=there.__contains__), load)  # Missing folders are named first.


def _sequence(layout: _Layout, name: str, binary: bool, missing: list[str]) -> VideoSequence | None:
    """The sequence, or None after noting what it lacks."""
    frames = frames_in(layout.frames / name, missing)
    masks = {} if layout.masks is None else _masks(layout.masks / name, frames, missing)
    if not frames or (layout.masks is not None and not masks):
        return None
    annotations = {path.stem: masks[path.stem] for path in frames if path.stem in masks}
    return VideoSequence(name, Video.from_files(frames, name=name), annotations, binary)


def _masks(folder: Path, frames: list[Path], missing: list[str]) -> dict[str, Path]:
    """Masks of a sequence by frame, after noting what they lack."""
    masks = mask_files(folder)
    if not masks:
        missing.append(f"masks of {folder.name} ({folder})")
    elif frames and (strange := strange_masks(masks, frames)):
        missing.append(f"frames {listed(strange)} of {folder.name}, which have masks ({folder})")
    elif frames and frames[0].stem not in masks:
        missing.append(f"the mask of the first frame of {folder.name} ({folder / frames[0].stem}.png)")
    return masks
