"""Snapshots that improved a validation score."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from vos_shared.atomic import write_json
from vos_shared.errors import BadWeights
from vos_shared.files import read_json


class BestSnapshots:
    """Keeps the snapshots that improved the score, the last few of them.

    Args:
        folder: of the snapshots, with `scores.json` that lists them in order of time.
        keep: how many; the oldest improvement is removed first.
    """

    def __init__(self, folder: Path, keep: int = 3) -> None:
        self.folder = folder
        self.keep = keep
        self._list = folder / "scores.json"
        self._resumed_best: float | None = None

    def entries(self) -> list[tuple[str, float]]:
        """File names and scores, each better than the one before."""
        if not self._list.is_file():
            return []
        try:
            return [(str(name), float(score)) for name, score in read_json(self._list)]
        except (ValueError, TypeError):
            raise BadWeights(f"{self._list} is damaged; remove {self.folder} to keep the best snapshots anew") from None

    @property
    def best(self) -> float | None:
        """The best score so far, also where its file has been removed."""
        entries = self.entries()
        return entries[-1][1] if entries else self._resumed_best

    def drop_beyond(self, best: float | None) -> None:
        """Forget improvements beyond `best`, the best score that a resumed run knows of: it will make them again.

        They may have been enough to remove the file of `best`; that score must be beaten all the same.
        """
        self._resumed_best = best
        kept = [(name, score) for name, score in self.entries() if best is not None and score <= best]
        if self._list.is_file():
            write_json(self._list, kept)

    def state_dict(self) -> dict[str, float | None]:
        """The best score, for a run that goes on."""
        return {"best": self.best}

    def load_state_dict(self, state: dict[str, float | None]) -> None:
        """Forget improvements that the resumed run does not know of, see `drop_beyond`."""
        self.drop_beyond(state["best"])

    def offer(self, score: float, name: str, write: Callable[[Path], None]) -> bool:
        """Keep a snapshot if it beats the best so far.

        Args:
            score: larger is better.
            name: file name inside the folder.
            write: writes the file.

        Returns:
            Whether it was kept.
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
