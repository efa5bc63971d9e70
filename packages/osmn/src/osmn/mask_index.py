"""Index of the objects in each frame of annotated videos; made once for a run, as it decodes all masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from tqdm import tqdm

from vos_shared.atomic import write_json
from vos_shared.datasets import VideoSequence
from vos_shared.files import read_json
from vos_shared.masks import ids_of
from vos_shared.results import fingerprint

Present: TypeAlias = dict[int, dict[int, tuple[float, float]]]
"""Object id -> frame index -> share of the image and of its own box that the object covers."""

INDEX = "objects.json"
"""File name of the index in the folder of a run."""


def find_objects(sequences: Sequence[VideoSequence], folder: Path | None) -> list[Present]:
    """The objects of each sequence.

    Args:
        sequences: annotated.
        folder: of the run, in which the index is kept for other processes and for a resumed run; None keeps none.

    Raises:
        BadMask: a mask cannot be read.
    """
    made_from = fingerprint([_state(sequence) for sequence in sequences])
    if folder is not None and (kept := _read(folder / INDEX, made_from)) is not None:
        return kept
    bar = tqdm(sequences, desc="indexing masks", unit="sequence", disable=None, leave=False)
    found = [_objects_of(sequence) for sequence in bar]
    if folder is not None:
        write_json(folder / INDEX, {"made_from": made_from, "objects": found})
    return found


def _state(sequence: VideoSequence) -> list[Any]:
    """Name, objects, and sizes and times of the mask files of a sequence."""
    stats = {name: path.stat() for name, path in sequence.annotations.items()}
    objects = None if sequence.objects is None else sorted(sequence.objects)
    return [sequence.name, objects, [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()]]


def _read(path: Path, made_from: str) -> list[Present] | None:
    """Read the index; None if it is missing, damaged or of other masks."""
    try:
        content = read_json(path)
        if content["made_from"] != made_from:
            return None
        return [
            {
                int(object_id): {int(at): (share, box) for at, (share, box) in frames.items()}
                for object_id, frames in item.items()
            }
            for item in content["objects"]
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _objects_of(sequence: VideoSequence) -> Present:
    present: Present = {}
    for index, name in enumerate(sequence.frame_names):
        mask = sequence.annotation(name)
        if mask is None:
            continue
        for object_id in ids_of(mask):
            if sequence.objects is not None and object_id not in sequence.objects:
                continue  # YouTube-VOS: some masks hold ids that the list of objects lacks.
            inside = mask == object_id
            rows, columns = np.nonzero(inside.any(1))[0], np.nonzero(inside.any(0))[0]
            box = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
            present.setdefault(object_id, {})[index] = (float(inside.mean()), float(inside.sum() / box))
    return present
