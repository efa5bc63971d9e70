"""What an evaluation found, as numbers, JSON and CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any, Final

from vos_shared.atomic import write_json, write_text
from vos_shared.metrics.davis import FrameScores
from vos_shared.metrics.statistics import statistics_of

MEASURES: Final = ("J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay")
REGION_MEASURES: Final = MEASURES[1:4]
"""All that there is where the protocol has no F."""


@dataclass(frozen=True)
class Item:
    """One object, or where there is one foreground, one sequence.

    Attributes:
        sequence: its name.
        object_id: in the truth; None for the foreground of the sequence.
        frame_names: names of the scored frames.
        frames: J of these frames, and F unless the protocol has none.
    """

    sequence: str
    object_id: int | None
    frame_names: tuple[str, ...]
    frames: FrameScores

    @property
    def name(self) -> str:
        """``blackswan_1``, or ``blackswan`` for the foreground."""
        return self.sequence if self.object_id is None else f"{self.sequence}_{self.object_id}"

    @cached_property
    def measures(self) -> dict[str, float]:
        """Each of `MEASURES` over the frames, or of `REGION_MEASURES`."""
        region = statistics_of(self.frames.region)
        if not self.frames.contour:
            return dict(zip(REGION_MEASURES, region, strict=True))
        contour = statistics_of(self.frames.contour)
        both = (region.mean + contour.mean) / 2
        return dict(zip(MEASURES, (both, *region, *contour), strict=True))


@dataclass(frozen=True)
class Scores:
    """Of a whole evaluation.

    Attributes:
        dataset: name of the protocol, one of `vos_shared.evaluation.PROTOCOLS`.
        items: what was scored, by name, in the order of the data set; at least one.
    """

    dataset: str
    items: Mapping[str, Item]

    @classmethod
    def of(cls, dataset: str, items: Iterable[Item]) -> Scores:
        """Collect items under their names."""
        return cls(dataset, {item.name: item for item in items})

    @cached_property
    def summary(self) -> dict[str, float]:
        """Mean over all items of each of `MEASURES`, or of `REGION_MEASURES`."""
        rows = [item.measures for item in self.items.values()]
        return {key: sum(row[key] for row in rows) / len(rows) for key in rows[0]}

    @property
    def frame_mean(self) -> float:
        """Mean J of all scored frames alike, long sequences counting more than short ones."""
        values = [value for item in self.items.values() for value in item.frames.region]
        return sum(values) / len(values)

    @property
    def objects(self) -> dict[str, dict[str, float]]:
        """J and F mean of each object, ``{"blackswan_1": {"J": .., "F": ..}}``; empty where there is one foreground."""
        return self._means(of_objects=True)

    @property
    def sequences(self) -> dict[str, dict[str, float]]:
        """J and F mean of each sequence's foreground, ``{"blackswan": {"J": .., "F": ..}}``; else empty."""
        return self._means(of_objects=False)

    @property
    def per_frame(self) -> dict[str, dict[str, list[float]]]:
        """J and F of each item frame by frame."""
        both = {name: {"J": item.frames.region, "F": item.frames.contour} for name, item in self.items.items()}
        return {name: {key: values for key, values in row.items() if values} for name, row in both.items()}

    def _means(self, *, of_objects: bool) -> dict[str, dict[str, float]]:
        return {
            name: {key: item.measures[f"{key}-Mean"] for key in ("J", "F") if f"{key}-Mean" in item.measures}
            for name, item in self.items.items()
            if (item.object_id is not None) == of_objects
        }

    def to_json(self) -> dict[str, Any]:
        """As JSON: ``dataset``, ``summary``, ``frame_mean``, ``objects`` or ``sequences``, and every frame's scores."""
        means = {"objects": self.objects, "sequences": self.sequences}
        return {
            "dataset": self.dataset,
            "summary": self.summary,
            "frame_mean": self.frame_mean,
            **{kind: rows for kind, rows in means.items() if rows},
            "frame_names": {item.sequence: list(item.frame_names) for item in self.items.values()},
            "per_frame": self.per_frame,
        }

    def write_json(self, path: str | Path) -> None:
        """Write `to_json` to a file, atomically; creates missing folders."""
        write_json(Path(path), self.to_json())

    def write_csv(self, path: str | Path) -> None:
        """Write a table of the measures, atomically: a row for the mean, named ``all``, then one for each item.

        Creates missing folders.
        """
        text = StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["name", *self.summary])
        table.writerow(["all", *self.summary.values()])
        table.writerows([name, *item.measures.values()] for name, item in self.items.items())
        write_text(Path(path), text.getvalue())
