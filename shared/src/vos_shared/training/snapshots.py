"""The best snapshots by validation score."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from vos_shared.atomic import write_json
from vos_shared.errors import BadWeights
from vos_shared.files import read_json


class BestSnapshots:
    """Keeps the last few snapshots that improved the validation score.

    Args:
        folder: folder of the snapshots; its ``scores.json`` lists them in the order they were written.
        keep: number of snapshots to keep; the oldest is removed first.
    """

    def __init__(self, folder: Path, keep: int = 3) -> None:
        self.folder = folder
        self.keep = keep
        self._list = folder / "scores.json"
        self._resumed_best: float | None = None

    def entries(self) -> list[tuple[str, float]]:
        """File names and scores; each score is higher than the one before."""
        if not self._list.is_file():
            return []
        try:
            return [(str(name), float(score)) for name, score in read_json(self._list)]
        except (ValueError, TypeError):
            raise BadWeights(f"{self._list} is damaged; remove {self.folder} to keep the best snapshots anew") from None

    @property
    def best(self) -> float | None:
        """The best score so far, even if its file has been removed; None before the first."""
        entries = self.entries()
        return entries[-1][1] if entries else self._resumed_best

    def state_dict(self) -> dict[str, float | None]:
        """The best score, for the resume file of a run."""
        return {"best": self.best}

    def load_state_dict(self, state: dict[str, float | None]) -> None:
        """Forget snapshots that are better than the resumed run's best score: the run will make them again.

        They may have replaced the file of that score, which must be beaten all the same.
        """
        self._resumed_best = best = state["best"]
        kept = [(name, score) for name, score in self.entries() if best is not None and score <= best]
        if self._list.is_file():
            write_json(self._list, kept)

    def offer(self, score: float, name: str, write: Callable[[Path], None]) -> bool:
        """Write a snapshot if its score is higher than the best so far.

        Args:
            score: validation score; higher is better, NaN is never kept.
            name: file name inside the folder.
            write: writes the snapshot to the given path.

        Returns:
            Whether the snapshot was kept.
        """
        if math.isnan(score) or (self.best is not None and score <= self.best):
            return False
        self.folder.mkdir(parents=True, exist_ok=True)
        write(self.folder / name)
        entries = [*self.entries(), (name, score)]
        kept, removed = entries[-self.keep :], entries[: -self.keep]
        write_json(self._list, kept)
        for old, _ in removed:
            (self.folder / old).unlink(missing_ok=True)
        return True
