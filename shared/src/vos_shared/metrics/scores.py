"""The scores of an evaluation, as numbers, JSON and CSV."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from vos_shared.atomic import write_csv, write_json
from vos_shared.metrics.davis import FrameScores
from vos_shared.metrics.statistics import statistics_of
from vos_shared.tables import text_table

MEASURES: Final = ("J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay")
REGION_MEASURES: Final = MEASURES[1:4]
"""The measures of protocols without F."""
FRAME_MEANS: Final = frozenset({"segtrack-v2", "fbms59"})
"""Protocols for which papers report either the mean of sequences or that of all frames."""


@dataclass(frozen=True)
class Item:
    """Scores of an object, or of the foreground of a sequence.

    Attributes:
        sequence: name of the sequence.
        object_id: id in the truth; None for the foreground.
        frame_names: names of the scored frames.
        frames: J of these frames, and F if the protocol has it.
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
        """`MEASURES` over the frames, or `REGION_MEASURES` if the protocol has no F."""
        region = statistics_of(self.frames.region)
        if not self.frames.contour:
            return dict(zip(REGION_MEASURES, region, strict=True))
        contour = statistics_of(self.frames.contour)
        both = (region.mean + contour.mean) / 2
        return dict(zip(MEASURES, (both, *region, *contour), strict=True))


@dataclass(frozen=True)
class Scores:
    """The result of an evaluation.

    Attributes:
        dataset: name of the protocol, one of `vos_shared.evaluation.PROTOCOLS`.
        items: scored objects or sequences by name, in the order of the data set; at least one.
    """

    dataset: str
    items: Mapping[str, Item]

    @classmethod
    def of(cls, dataset: str, items: Iterable[Item]) -> Scores:
        """Collect items under their names."""
        return cls(dataset, {item.name: item for item in items})

    @cached_property
    def summary(self) -> dict[str, float]:
        """Mean of each measure over all items."""
        rows = [item.measures for item in self.items.values()]
        return {key: sum(row[key] for row in rows) / len(rows) for key in rows[0]}

    @property
    def frame_mean(self) -> float:
        """Mean J over all scored frames, in which long sequences count more than short ones."""
        values = [value for item in self.items.values() for value in item.frames.region]
        return sum(values) / len(values)

    @property
    def objects(self) -> dict[str, dict[str, float]]:
        """Mean J and F of each object, ``{"blackswan_1": {"J": .., "F": ..}}``; empty for a foreground protocol."""
        return self._means(of_objects=True)

    @property
    def sequences(self) -> dict[str, dict[str, float]]:
        """Mean J and F of each foreground, ``{"blackswan": {"J": .., "F": ..}}``; empty for an object protocol."""
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

    def table(self) -> str:
        """All measures of each item and their means in percent, for a terminal."""
        named = {**{name: item.measures for name, item in self.items.items()}, "mean": self.summary}
        rows = [[name, *(f"{100 * row[measure]:.1f}" for measure in self.summary)] for name, row in named.items()]
        text = text_table((self.dataset, *self.summary), rows)
        if self.dataset in FRAME_MEANS:
            text += f"\nmean J of all frames alike: {100 * self.frame_mean:.1f}"
        return text

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
        """Write a row ``all`` with the means, then one for each item; creates missing folders."""
        rows = ([name, *item.measures.values()] for name, item in self.items.items())
        write_csv(Path(path), [["name", *self.summary], ["all", *self.summary.values()], *rows])
