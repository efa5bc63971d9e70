"""YouTube-VOS: `<split>/meta.json`, `<split>/JPEGImages/<video>`, `<split>/Annotations/<video>`.

A video has masks where objects enter (``valid``, ``test``) or in every listed frame (``train``); `meta.json` lists the
frames of each object.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vos_shared.datasets.names import choose, refuse_missing, refuse_paths, strange_masks
from vos_shared.datasets.sequence import VideoSequence
from vos_shared.errors import BadDataset
from vos_shared.files import read_json
from vos_shared.folders import mask_files
from vos_shared.masks import VOID
from vos_shared.tables import listed
from vos_shared.video import Video
from vos_shared.video_sources import frame_files

Objects = Mapping[int, tuple[str, ...]]
"""Object id with the names of its frames, in order; the mask of the first of them is given."""


def youtube_vos(
    root: str | Path,
    split: str | Path = "valid",
    *,
    resolution: str | None = None,
    sequences: Iterable[str] | None = None,
    masks_required: bool = True,
) -> list[VideoSequence]:
    """YouTube-VOS, 2018 or 2019: each object is prompted from its first frame in `meta.json` on, not before.

    Args:
        root: folder that holds the splits.
        split: folder below it, such as ``train``, ``valid`` or ``test``.
        resolution: there is one only; must be None.
        sequences: of the split, only these videos.
        masks_required: False also reads videos without masks.

    Raises:
        BadDataset: with everything that is missing.
    """
    if resolution is not None:
        raise BadDataset(f"YouTube-VOS has no resolution folders; leave out resolution {resolution}")
    folder, meta = Path(root, split), read_meta(root, split)
    missing: list[str] = []
    names = choose(meta, str(folder / "meta.json"), sequences)
    loaded = [_sequence(folder, name, meta[name], masks_required, missing) for name in names]
    refuse_missing(folder, missing)
    return [sequence for sequence in loaded if sequence is not None]


def read_meta(root: str | Path, split: str | Path = "valid") -> dict[str, Objects]:
    """Read `meta.json` of a split: its videos, and the frames of each of their objects.

    Raises:
        BadDataset: no such file, or one of another form.
    """
    path = Path(root, split, "meta.json")
    try:
        videos = read_json(path)["videos"]
        meta = {name: _objects(video["objects"], path, name) for name, video in videos.items()}
    except FileNotFoundError:
        remedy = (
            f"; give {path.parent} as davis2017 to read it without" if (path.parent / "JPEGImages").is_dir() else ""
        )
        raise BadDataset(f"{root} is no YouTube-VOS folder with a split {split}: {path} not found{remedy}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as reason:
        raise BadDataset(
            f"{path} is not the meta.json of YouTube-VOS, videos > name > objects > id > frames "
            f"({type(reason).__name__}: {reason}); download it again"
        ) from None
    refuse_paths(meta, str(path))
    return meta


def wanted_frames(objects: Objects) -> tuple[str, ...]:
    """Frames of a video whose masks the benchmark wants: those that are listed for any of its objects, in order."""
    return tuple(sorted({frame for frames in objects.values() for frame in frames}))


def _objects(content: Mapping[str, Any], path: Path, video: str) -> Objects:
    objects = {int(k): tuple(map(str, value["frames"])) for k, value in content.items()}
    bad = [str(k) for k, frames in objects.items() if not 0 < k < VOID or not frames]
    if bad or not objects:
        raise BadDataset(
            f"{path}: video {video} has object {listed(bad) or 'none'}; "
            "there must be some, with ids 1 to 254 and at least one frame each"
        )
    refuse_paths(wanted_frames(objects), str(path), "a frame is a file name without suffix")
    return dict(sorted(objects.items()))


def _sequence(
    folder: Path, name: str, objects: Objects, masks_required: bool, missing: list[str]
) -> VideoSequence | None:
    """The sequence, or None after noting what it lacks."""
    frames_folder, masks_folder = folder / "JPEGImages" / name, folder / "Annotations" / name
    frames = frame_files(frames_folder) if frames_folder.is_dir() else []
    masks = mask_files(masks_folder)
    stems = {path.stem for path in frames}
    if not frames:
        missing.append(f"frames of {name} ({frames_folder})")
    elif lacking := [frame for frame in wanted_frames(objects) if frame not in stems]:
        missing.append(f"frames {listed(lacking)} of {name} ({frames_folder})")
    elif strange := strange_masks(masks, frames):
        missing.append(f"frames {listed(strange)} of {name}, which have masks ({frames_folder})")
    firsts = dict.fromkeys(frames[0] for frames in objects.values())
    if masks_required and (lacking := [f"{first}.png" for first in firsts if first not in masks]):
        missing.append(f"masks of {name} in which objects enter: {listed(lacking)} ({masks_folder})")
    if not frames:
        return None
    annotations = {path.stem: masks[path.stem] for path in frames if path.stem in masks}
    starts = {k: frames[0] for k, frames in objects.items()}
    return VideoSequence(name, Video.from_files(frames, name=name), annotations, objects=starts)
