"""Loaders of data sets: each returns a list of `VideoSequence`, videos with their masks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from vos_shared.datasets.davis import davis2016, davis2017
from vos_shared.datasets.fbms import fbms59
from vos_shared.datasets.names import Split
from vos_shared.datasets.object_discovery import object_discovery
from vos_shared.datasets.saliency import saliency
from vos_shared.datasets.segtrack import segtrack_v2
from vos_shared.datasets.sequence import VideoSequence
from vos_shared.datasets.voc import voc2012
from vos_shared.datasets.youtube_objects import youtube_objects
from vos_shared.datasets.youtube_objects_boxes import youtube_objects_boxes
from vos_shared.datasets.youtube_vos import youtube_vos
from vos_shared.errors import BadDataset

__all__ = [
    "DATASETS",
    "VideoSequence",
    "davis2016",
    "davis2017",
    "fbms59",
    "load_dataset",
    "object_discovery",
    "saliency",
    "segtrack_v2",
    "voc2012",
    "youtube_objects",
    "youtube_objects_boxes",
    "youtube_vos",
]

DATASETS: Final[Mapping[str, Callable[..., list[VideoSequence]]]] = {
    "davis2016": davis2016,
    "davis2017": davis2017,
    "youtube-vos": youtube_vos,
    "youtube-objects": youtube_objects,
    "segtrack-v2": segtrack_v2,
    "fbms59": fbms59,
    "saliency": saliency,
    "voc2012": voc2012,
    "object-discovery": object_discovery,
    "youtube-objects-boxes": youtube_objects_boxes,
}
"""Loaders by name; each takes (root, split, *, sequences)."""

_RESOLUTIONS: Final = frozenset({"davis2016", "davis2017"})
"""Loaders that also take `resolution`."""

_MASKS_OPTIONAL: Final = frozenset({"davis2016", "davis2017", "youtube-vos", "youtube-objects"})
"""Loaders that also take `masks_required`."""


def require_known(name: str) -> None:
    """Raise `BadDataset` unless `name` is one of `DATASETS`."""
    if name not in DATASETS:
        raise BadDataset(f"no data set is called {name!r}; known are {', '.join(DATASETS)}")


def load_dataset(
    name: str,
    root: str | Path,
    split: Split | None = None,
    sequences: Iterable[str] | None = None,
    resolution: str | None = None,
    *,
    masks_required: bool = True,
) -> list[VideoSequence]:
    """Load a data set by name.

    Args:
        name: one of `DATASETS`.
        root: folder of the data set.
        split: name or path of a list of sequences; by default the validation split.
        sequences: load only these sequences of the split.
        resolution: folder below `JPEGImages`; DAVIS only.
        masks_required: False accepts videos without masks, for methods without prompts.

    Raises:
        BadDataset: unknown name, a resolution for a data set without, or the folder is incomplete; names all that is
            missing.
    """
    require_known(name)
    options: dict[str, object] = {"sequences": sequences}
    if name in _RESOLUTIONS:
        options["resolution"] = resolution
    elif resolution is not None:
        raise BadDataset(f"{name} has no resolution folders; leave out resolution {resolution}")
    if name in _MASKS_OPTIONAL:
        options["masks_required"] = masks_required
    return DATASETS[name](root, *(() if split is None else (split,)), **options)
