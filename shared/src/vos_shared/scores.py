"""Soft masks in files: ``<root>/<sequence>/<id>/<frame>.npy``, float32 [H, W] in 0..1."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from vos_shared.errors import BadResults
from vos_shared.method import Scores
from vos_shared.results import ResultsTree

Score: TypeAlias = npt.NDArray[np.float32]
"""The soft mask of one object, float32 [H, W] in 0..1."""


class ScoreWriter:
    """Writes the soft masks of one sequence, from the frame on in which an object is first seen.

    Args:
        folder: of the sequence.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._seen: set[int] = set()

    def write(self, frame_name: str, scores: Scores) -> None:
        """Write the soft masks of a frame, float32 [K, H, W]; row k belongs to id k + 1."""
        for key, score in enumerate(scores, start=1):
            if key in self._seen or score.any():
                self._seen.add(key)
                (self.folder / str(key)).mkdir(parents=True, exist_ok=True)
                _save(self.folder / str(key) / f"{frame_name}.npy", score.astype(np.float32, copy=False))
        if self._seen:
            self.folder.touch()  # It is still in use: see `sweep_abandoned`.


def _save(path: Path, score: Score) -> None:
    content = BytesIO()
    np.save(content, score)
    path.write_bytes(content.getbuffer())  # NumPy, writing to a file itself, does not tell that a disk is full.


@contextmanager
def score_writer(tree: ResultsTree | None, sequence_name: str, inputs: str = "") -> Iterator[ScoreWriter | None]:
    """Write the soft masks of a sequence; its folder appears when the block ends, and not if it raises.

    Args:
        tree: of all sequences; None writes nothing.
        sequence_name: a folder name.
        inputs: a fingerprint of what the soft masks are made from.

    Raises:
        BadResults: the folder is there and was not written as results.
    """
    if tree is None:
        yield None
        return
    with tree.replacing(sequence_name, inputs) as folder:
        yield ScoreWriter(folder)


def scored_objects(folder: Path) -> list[int]:
    """Ids of the objects that have soft masks in the folder of a sequence; other files and folders do not matter.

    Raises:
        BadResults: there are none.
    """
    found = sorted(int(path.name) for path in folder.glob("*") if path.name.isdigit() and path.is_dir())
    if not found:
        raise BadResults(f"{folder} holds no soft masks; they are <id>/<frame>.npy, as segment --scores writes them")
    return found


def read_score(folder: Path, key: int, frame_name: str) -> Score | None:
    """The soft mask of an object in a frame, float32 [H, W], or None where there is none.

    Raises:
        BadResults: the file is damaged or holds something else.
    """
    path = folder / str(key) / f"{frame_name}.npy"
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            score = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as reason:
        raise BadResults(
            f"soft mask {path} cannot be read ({reason}); write it again with segment --scores"
        ) from reason
    if score.ndim != 2 or score.dtype.kind != "f":
        raise BadResults(f"soft mask {path} is {score.dtype} {list(score.shape)}, not float [H, W]")
    return np.asarray(score, np.float32)
