"""DAVIS 2016 and 2017: `JPEGImages/<resolution>/<sequence>`, `Annotations/<resolution>/<sequence>`, `ImageSets`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vos_shared.datasets.names import Split, choose, read_lines
from vos_shared.datasets.sequence import VideoSequence
from vos_shared.errors import BadDataset
from vos_shared.video import Video
from vos_shared.video_sources import frame_files

Task = Literal["semi-supervised", "unsupervised"]

_ANNOTATIONS: dict[Task, str] = {"semi-supervised": "Annotations", "unsupervised": "Annotations_unsupervised"}

_FRAME_AND_MASK = re.compile(r"/?JPEGImages/[^/\s]+/(?P<sequence>[^/\s]+)/\S+\s+/?Annotations/\S+")


def davis2016(
    root: str | Path,
    split: Split = "val",
    *,
    resolution: str | None = None,
    sequences: Iterable[str] | None = None,
) -> list[VideoSequence]:
    """DAVIS-2016: one foreground object; any id above 0 belongs to it, so 2017 annotations and 0/255 masks will do.

    Args:
        root: folder that holds `JPEGImages` and `Annotations`.
        split: list of sequences: `ImageSets/2016/<split>.txt`, else that of the resolution, else that of 2017.
        resolution: folder below `JPEGImages`; by default ``480p``, or the only one there is.
        sequences: of the split, only these.

    Raises:
        BadDataset: with everything that is missing.

    """
    layout = _layout(root, "Annotations", resolution)
    return _load(layout, _sequence_names(layout, split, ("2016", layout.frames.name, "2017"), sequences), binary=True)


def davis2017(
    root: str | Path,
    split: Split = "val",
    *,
    resolution: str | None = None,
    sequences: Iterable[str] | None = None,
    task: Task = "semi-supervised",
) -> list[VideoSequence]:
    """DAVIS-2017: several objects.

    Args:
        root: folder that holds `JPEGImages` and `Annotations`.
        split: list of sequences: `ImageSets/2017/<split>.txt`.
        resolution: folder below `JPEGImages`; by default ``480p``, or the only one there is.
        sequences: of the split, only these.
        task: ``unsupervised`` reads `Annotations_unsupervised`, where 255 is void.

    Raises:
        BadDataset: with everything that is missing.

    """
    layout = _layout(root, _ANNOTATIONS[task], resolution)
    return _load(layout, _sequence_names(layout, split, ("2017",), sequences), binary=False)


@dataclass(frozen=True)
class _Layout:
    root: Path
    frames: Path
    masks: Path


def _layout(root: str | Path, annotations: str, resolution: str | None) -> _Layout:
    root = Path(root)
    if not root.is_dir():
        raise BadDataset(f"no such folder: {root}")
    missing = [name for name in ("JPEGImages", annotations) if not (root / name).is_dir()]
    if missing:
        raise BadDataset(f"{root} is no DAVIS folder: it lacks {' and '.join(missing)}")
    if resolution is None:
        resolution = _only_resolution(root)
    layout = _Layout(root, root / "JPEGImages" / resolution, root / annotations / resolution)
    missing = [str(folder.relative_to(root)) for folder in (layout.frames, layout.masks) if not folder.is_dir()]
    if missing:
        raise BadDataset(f"{root} lacks {' and '.join(missing)}")
    return layout


def _only_resolution(root: Path) -> str:
    folders = (path for path in (root / "JPEGImages").iterdir() if path.is_dir() and not path.name.startswith("."))
    found = sorted(folder.name for folder in folders)
    if "480p" in found:
        return "480p"
    if len(found) == 1:
        return found[0]
    raise BadDataset(
        f"{root / 'JPEGImages'} holds {', '.join(found)}; choose one with --resolution"
        if found
        else f"{root / 'JPEGImages'} is empty; it should hold a folder of sequences, such as 480p"
    )


def _sequence_names(layout: _Layout, split: Split, folders: tuple[str, ...], wanted: Iterable[str] | None) -> list[str]:
    if isinstance(split, (str, Path)):
        names, where = _listed(layout, split, folders)
    else:
        names, where = list(split), "the sequences given"
    return choose(names, where, wanted)


def _listed(layout: _Layout, split: str | Path, folders: tuple[str, ...]) -> tuple[list[str], str]:
    candidates = [layout.root / "ImageSets" / folder / f"{split}.txt" for folder in folders]
    path = next((file for file in (*candidates, Path(split)) if file.is_file()), None)
    if path is None:
        there = sorted(str(file.relative_to(layout.root)) for file in layout.root.glob("ImageSets/*/*.txt"))
        raise BadDataset(
            f"no list of sequences for split {split}: {' and '.join(map(str, candidates))} not found; "
            f"there is {', '.join(there) or 'no list at all'}"
        )
    return [sequence_named_in(line) for line in read_lines(path)], str(path)


def sequence_named_in(line: str) -> str:
    """The sequence that a line of a list names: by its name, or, as DAVIS-2016 first did, by a frame and its mask."""
    paths = _FRAME_AND_MASK.fullmatch(line)
    return paths["sequence"] if paths else line


def _load(layout: _Layout, names: list[str], *, binary: bool) -> list[VideoSequence]:
    missing: list[str] = []
    loaded = [_sequence(layout, name, binary, missing) for name in names]
    if missing:
        raise BadDataset(f"{layout.root} lacks {'; '.join(missing)}")
    return [sequence for sequence in loaded if sequence is not None]


def _sequence(layout: _Layout, name: str, binary: bool, missing: list[str]) -> VideoSequence | None:
    """The sequence, or None after noting what it lacks."""
    frames_folder, masks_folder = layout.frames / name, layout.masks / name
    frames = frame_files(frames_folder) if frames_folder.is_dir() else []
    if not frames:
        missing.append(f"frames of {name} ({frames_folder})")
    masks = {path.stem: path for path in masks_folder.glob("*.png")} if masks_folder.is_dir() else {}
    if not masks:
        missing.append(f"masks of {name} ({masks_folder})")
    elif frames and frames[0].stem not in masks:
        missing.append(f"the mask of the first frame of {name} ({masks_folder / frames[0].stem}.png)")
    if not frames or not masks:
        return None
    annotations = {path.stem: masks[path.stem] for path in frames if path.stem in masks}
    return VideoSequence(name, Video.from_files(frames, name=name), annotations, binary)
