"""YouTube-Objects with boxes, v1 and v2.2 (Prest et al., CVPR 2012; Kalogeiton et al., PAMI 2016), for CorLoc.

The published annotations are Matlab files whose layout could not be checked, so they are not read. Write their boxes to
`boxes.csv`, for both versions: a header ``image,xmin,ymin,xmax,ymax``, then one row for each box. `image` is the path
of the frame in the data set's folder, `<class>/../<frame>.jpg`; its first folder is the class. Pixels are numbered from
1 (as in Matlab), and xmax and ymax belong to the box. A frame with several objects has several rows.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Final

from vos_shared.datasets.image_sets import image_sequences, some
from vos_shared.datasets.names import choose
from vos_shared.datasets.saliency import read_saliency_mask
from vos_shared.datasets.sequence import VideoSequence
from vos_shared.errors import BadDataset
from vos_shared.files import read_text
from vos_shared.metrics.detection import Box

COLUMNS: Final = ("image", "xmin", "ymin", "xmax", "ymax")


def youtube_objects_boxes(
    root: str | Path, split: str | None = None, *, sequences: Iterable[str] | None = None
) -> list[VideoSequence]:
    """Load the frames with boxes; each is a sequence, named by the frame's path with ``-`` in place of ``/``.

    Args:
        root: folder that holds `boxes.csv` and the frames.
        split: a single class; by default all.
        sequences: load only these.

    Raises:
        BadDataset: `boxes.csv` is missing or invalid, or frames are missing.
    """
    root = Path(root)
    rows = _rows(root / "boxes.csv")
    files = {_name(image): root / image for image, _ in rows if split in (None, class_of(image))}
    names = choose(files, str(root / "boxes.csv"), sequences)
    if gone := [str(files[name].relative_to(root)) for name in names if not files[name].is_file()]:
        raise BadDataset(f"{root} lacks {some(gone, 'frame')} that boxes.csv names")
    return image_sequences({name: files[name] for name in names}, {}, read_saliency_mask, binary=True)


def read_boxes(root: str | Path) -> dict[str, tuple[str, list[Box]]]:
    """Class and boxes of each sequence of `youtube_objects_boxes`.

    Raises:
        BadDataset: `boxes.csv` is missing or invalid.
    """
    found: dict[str, tuple[str, list[Box]]] = {}
    for image, box in _rows(Path(root) / "boxes.csv"):
        found.setdefault(_name(image), (class_of(image), []))[1].append(box)
    return found


def class_of(image: str) -> str:
    """The class of a frame: the first folder of its path."""
    return PurePosixPath(image).parts[0]


def _name(image: str) -> str:
    return "-".join(PurePosixPath(image).with_suffix("").parts)


def _rows(path: Path) -> list[tuple[str, Box]]:
    if not path.is_file():
        raise BadDataset(f"{path} does not exist; it must hold a header {','.join(COLUMNS)} and a row for each box")
    try:
        table = csv.DictReader(read_text(path).splitlines())
        if tuple(table.fieldnames or ()) != COLUMNS:
            raise BadDataset(f"{path} begins with {table.fieldnames}; its header must be {','.join(COLUMNS)}")
        rows = [_row(path, line, row) for line, row in enumerate(table, start=2)]
    except (csv.Error, UnicodeDecodeError) as reason:
        raise BadDataset(f"{path} cannot be read: {reason}") from reason
    if not rows:
        raise BadDataset(f"{path} holds no box")
    return rows


def _row(path: Path, line: int, row: dict[str, str]) -> tuple[str, Box]:
    image = row["image"]
    try:
        left, top, right, bottom = (round(float(row[column])) for column in COLUMNS[1:])
    except (TypeError, ValueError, OverflowError):
        raise BadDataset(f"{path}, line {line}: {row} is not a frame and four numbers") from None
    parts = PurePosixPath(image).parts
    if len(parts) < 2 or ".." in parts or parts[0] == "/":
        raise BadDataset(f"{path}, line {line}: {image!r} is not <class>/<frame>")
    if not (1 <= left <= right and 1 <= top <= bottom):
        raise BadDataset(f"{path}, line {line}: {left},{top},{right},{bottom} is not a box; pixels count from 1")
    return image, (top - 1, left - 1, bottom, right)
