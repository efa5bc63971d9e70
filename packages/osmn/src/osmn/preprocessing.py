"""DAVIS as the official programs read it, with one binary mask per object (specification, section 14).

Nothing in this package reads these files; they are for users who also run the official programs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from tqdm import tqdm

from vos_shared.datasets import VideoSequence
from vos_shared.masks import VOID, ids_of
from vos_shared.results import ResultsTree, check_places

KIND = "binary masks of a data set"


def split_objects(sequences: list[VideoSequence], annotations: Path, resolution: str) -> None:
    """Write <resolution>_split/<sequence>/<id>/<frame>.png and <resolution>_all/<sequence>/<frame>.png, 0 and 255.

    The ids are those of the first frame, as in the official program: objects that appear later are left out.

    Args:
        sequences: with masks.
        annotations: folder that gets the two folders.
        resolution: first part of their names.

    Raises:
        BadResults: the folder of a sequence exists and was not written by this function; nothing is written then.
    """
    # Records lie beside the sequence folders: the official programs read the folders of listed sequences only.
    split, union = (ResultsTree(annotations / f"{resolution}_{part}", kind=KIND) for part in ("split", "all"))
    check_places([split, union], (sequence.name for sequence in sequences))
    for sequence in tqdm(sequences, unit="sequence", disable=None):
        with split.replacing(sequence.name) as objects, union.replacing(sequence.name) as foreground:
            _write_sequence(sequence, objects, foreground)


def _write_sequence(sequence: VideoSequence, objects: Path, foreground: Path) -> None:
    first = sequence.annotation(sequence.frame_names[0])
    ids = [] if first is None else ids_of(first)
    for frame_name in sequence.frame_names:
        mask = sequence.annotation(frame_name)
        if mask is None:
            continue
        _write(foreground / f"{frame_name}.png", (mask > 0) & (mask < VOID))
        for object_id in ids:
            _write(objects / str(object_id) / f"{frame_name}.png", mask == object_id)


def _write(path: Path, inside: npt.NDArray[np.bool_]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(inside.astype(np.uint8) * np.uint8(255)).save(path)
