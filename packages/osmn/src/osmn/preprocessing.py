"""DAVIS with one binary mask an object, as the official programs read it (specification, section 14).

Nothing in this package needs that: it is for those who run the official programs beside it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from vos_shared.atomic import atomic_path
from vos_shared.datasets import Sequence
from vos_shared.masks import VOID
from vos_shared.method import ObjectMask


def split_objects(sequences: list[Sequence], annotations: Path, resolution: str) -> None:
    """Write <resolution>_split/<sequence>/<id>/<frame>.png and <resolution>_all/<sequence>/<frame>.png, 0 and 255.

    The ids are those of the first frame, as in the official program: objects that appear later are left out.

    Args:
        sequences: with masks.
        annotations: folder that gets the two folders.
        resolution: first part of their names.
    """
    for sequence in tqdm(sequences, unit="sequence", disable=None):
        first = sequence.annotation(sequence.frame_names[0])
        ids = [] if first is None else [int(key) for key in np.unique(first) if key not in (0, VOID)]
        for frame_name in sequence.frame_names:
            mask = sequence.annotation(frame_name)
            if mask is None:
                continue
            _write(annotations / f"{resolution}_all" / sequence.name / f"{frame_name}.png", (mask > 0) & (mask < VOID))
            for key in ids:
                place = annotations / f"{resolution}_split" / sequence.name / str(key) / f"{frame_name}.png"
                _write(place, mask == key)


def _write(path: Path, inside: ObjectMask) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        Image.fromarray(inside.astype(np.uint8) * np.uint8(255)).save(temporary, "png")
