"""YouTube-VOS: `<split>/meta.json`, `<split>/JPEGImages/<video>`, `<split>/Annotations/<video>`.

`meta.json` lists the frames of each object. A video has masks of the frames where objects enter (``valid``, ``test``)
or of all listed frames (``train``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vos_shared.datasets.names import choose, frames_in, load_all, refuse_paths, strange_masks
from vos_shared.datasets.sequence import VideoSequence
from vos_shared.errors import BadDataset
from vos_shared.files import read_json
from vos_shared.folders import mask_files
from vos_shared.masks import VOID
from vos_shared.tables import listed
from vos_shared.video import Video

Objects = Mapping[int, tuple[str, ...]]
"""Frame names of each object, by object id; the mask of its first frame is given."""


def youtube_vos(
    root: str | Path,
    split: str | Path = "valid",
    *,
    sequences: Iterable[str] | None = None,
    masks_required: bool = True,
) -> list[VideoSequence]:
    """Load YouTube-VOS 2018 or 2019; each object is prompted in its first frame in `meta.json`, not before.

    Args:
        root: folder that holds the splits.
        split: folder below `root`, such as ``train``, ``valid`` or ``test``.
        sequences: load only these videos of the split.
        masks_required: False accepts videos without masks.

    Raises:
        BadDataset: names all that is missing.
    """
    folder, meta = Path(root, split), read_meta(root, split)
    names = choose(meta, str(folder / "meta.json"), sequences)
    return load_all(folder, names, lambda name, missing: _sequence(folder, name, meta[name], masks_required, missing))


def read_meta(root: str | Path, split: str | Path = "valid") -> dict[str, Objects]:
    """Read `meta.json` of a split: the objects of each video.

    Raises:
        BadDataset: the file is missing or invalid.
    """
    path = Path(root, split, "meta.json")
    try:
        videos = read_json(path)["videos"]
        meta = {name: _objects(video["objects"], path, name) for name, video in videos.items()}
    except FileNotFoundError:
        remedy = (
            f"; give {path.parent} as davis2017 to read it without" if (path.parent / "JPEGImages").is_dir() else ""
        )
        raise BadDataset(f"{root} is not a YouTube-VOS folder with a split {split}: {path} not found{remedy}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as reason:
        raise BadDataset(
            f"{path} is not the meta.json of YouTube-VOS, videos > name > objects > id > frames "
            f"({type(reason).__name__}: {reason}); download it again"
        ) from None
    refuse_paths(meta, str(path))
    return meta


def wanted_frames(objects: Objects) -> tuple[str, ...]:
    """Frames of a video whose masks the benchmark requires: those listed for any object, in order."""
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
    frames, masks = frames_in(frames_folder, missing), mask_files(masks_folder)
    stems = {path.stem for path in frames}
    if frames and (lacking := [frame for frame in wanted_frames(objects) if frame not in stems]):
        missing.append(f"frames {listed(lacking)} of {name} ({frames_folder})")
    elif frames and (strange := strange_masks(masks, frames)):
        missing.append(f"frames {listed(strange)} of {name}, which have masks ({frames_folder})")
    firsts = dict.fromkeys(frames[0] for frames in objects.values())
    if masks_required and (lacking := [f"{first}.png" for first in firsts if first not in masks]):
        missing.append(f"masks of {name} in which objects enter: {listed(lacking)} ({masks_folder})")
    if not frames:
        return None
    annotations = {path.stem: masks[path.stem] for path in frames if path.stem in masks}
    starts = {k: frames[0] for k, frames in objects.items()}
    return VideoSequence(name, Video.from_files(frames, name=name), annotations, objects=starts)
