"""DAVIS 2016 and 2017, and what is laid out alike.

DAVIS has `JPEGImages/<resolution>/<sequence>`, `Annotations/<resolution>/<sequence>` and lists in `ImageSets`. MOSE,
LVOS and YouTube-VOS without its `meta.json` have no folders of resolutions, and often no lists.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from vos_shared.datasets.names import Split, choose, read_lines, refuse_missing, strange_masks
from vos_shared.datasets.sequence import VideoSequence
from vos_shared.errors import BadDataset
from vos_shared.folders import mask_files, subfolders
from vos_shared.tables import listed
from vos_shared.video import Video
from vos_shared.video_sources import FRAME_SUFFIXES, frame_files

Task = Literal["semi-supervised", "unsupervised"]

ANNOTATIONS: Final[Mapping[Task, str]] = {"semi-supervised": "Annotations", "unsupervised": "Annotations_unsupervised"}
"""Folder of the masks for each task."""

_FRAME_AND_MASK = re.compile(r"/?JPEGImages/[^/\s]+/(?P<sequence>[^/\s]+)/\S+\s+/?Annotations/\S+")


def davis2016(
    root: str | Path,
    split: Split | None = None,
    *,
    resolution: str | None = None,
    sequences: Iterable[str] | None = None,
    masks_required: bool = True,
) -> list[VideoSequence]:
    """DAVIS-2016: one foreground object; any id above 0 belongs to it, so 2017 annotations and 0/255 masks will do.

    Args:
        root: folder that holds `JPEGImages` and `Annotations`.
        split: list of sequences: `ImageSets/2016/<split>.txt`, else that of the resolution, else that of 2017; by
            default ``val``, or all sequences where there are no folders of resolutions and no lists.
        resolution: folder below `JPEGImages`; by default ``480p``, or the only one there is.
        sequences: of the split, only these.
        masks_required: False also reads frames without any `Annotations`.

    Raises:
        BadDataset: with everything that is missing.
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
    """DAVIS-2017: several objects.

    Args:
        root: folder that holds `JPEGImages` and `Annotations`.
        split: list of sequences: `ImageSets/2017/<split>.txt`; by default as in `davis2016`.
        resolution: folder below `JPEGImages`; by default ``480p``, or the only one there is.
        sequences: of the split, only these.
        task: ``unsupervised`` reads `Annotations_unsupervised`, where 255 is void.
        masks_required: False also reads frames without any `Annotations`.

    Raises:
        BadDataset: with everything that is missing.
    """
    layout = _layout(root, task, resolution, masks_required)
    return _load(layout, _sequence_names(layout, split, ("2017", ""), sequences), binary=False)


@dataclass(frozen=True)
class _Layout:
    """Where the sequences are.

    Attributes:
        frames: folder that holds a folder of frames for each.
        masks: the same of masks; None where there are no masks.
        resolution: name of both; empty where `JPEGImages` holds the sequences itself.
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
        raise BadDataset(f"{root} is no DAVIS folder: it lacks {' and '.join(missing)}")
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
    """Folders of resolutions in `JPEGImages`; a single empty name where it holds the sequences itself."""
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
    """Sequences that a list names: by their names, or, as DAVIS-2016 first did, by frames and their masks.

    Raises:
        BadDataset: it cannot be read as text.
    """
    paths = [(_FRAME_AND_MASK.fullmatch(line), line) for line in read_lines(path)]
    return list(dict.fromkeys(match["sequence"] if match else line for match, line in paths))


def _load(layout: _Layout, names: list[str], *, binary: bool) -> list[VideoSequence]:
    folders = [layout.frames] if layout.masks is None else [layout.frames, layout.masks]
    there = {path.name for folder in folders for path in subfolders(folder)}
    what = "frames" if layout.masks is None else "frames and masks"
    missing = [f"{what} of {name}" for name in names if name not in there]
    loaded = [_sequence(layout, name, binary, missing) for name in names if name in there]
    refuse_missing(layout.root, missing)
    return [sequence for sequence in loaded if sequence is not None]


def _sequence(layout: _Layout, name: str, binary: bool, missing: list[str]) -> VideoSequence | None:
    """The sequence, or None after noting what it lacks."""
    folder = layout.frames / name
    frames = frame_files(folder) if folder.is_dir() else []
    if not frames:
        missing.append(f"frames of {name} ({folder})")
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
