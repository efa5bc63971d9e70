"""Where a run of the whole method keeps what its stages make: masks, scores, selections, records and networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unsup_fg.data_sets import DataSet
from unsup_fg.selection import Scored
from unsup_fg.settings import CandidateName, NetworkName
from vos_shared.atomic import write_json
from vos_shared.files import read_json
from vos_shared.results import SOFT_MASKS, ResultsTree


@dataclass(frozen=True)
class RunFolder:
    """Folders and files of a run.

    Attributes:
        output: folder of the run.
        size: working size of VideoPCA, in pixels.
    """

    output: Path
    size: int

    def generation(self, number: int) -> Path:
        """Folder of an iteration."""
        return self.output / f"generation-{number}"

    def training_folder(self, network: NetworkName, generation: int) -> Path:
        """Folder in which a network is trained."""
        return self.generation(generation) / "training" / network

    def records_folder(self, network: NetworkName, generation: int) -> Path:
        """Folder of what a network learns from."""
        return self.generation(generation) / ("labels" if network == "evalseg" else "records")

    def teacher_masks(self, data: DataSet) -> ResultsTree:
        """Soft masks of VideoPCA."""
        settings = {"method": "videopca", "size": self.size}
        return ResultsTree(self.generation(1) / "teacher" / data.name, settings=settings, kind=SOFT_MASKS)

    def student_masks(self, student: CandidateName, data: DataSet) -> ResultsTree:
        """Soft masks of a student of the first generation, or their consensus."""
        settings = {"method": "unsup-fg", "student": student}
        return ResultsTree(self.generation(1) / "masks" / student / data.name, settings=settings, kind=SOFT_MASKS)

    def scores_file(self, data: DataSet, student: CandidateName | None = None) -> Path:
        """Scores of the soft masks of a data set, those of VideoPCA, of a student, or their consensus."""
        folder = self.generation(1 if student is None else 2) / "scores"
        return (folder if student is None else folder / student) / f"{data.name}.json"

    def selection_file(self, generation: int) -> Path:
        """What the students of a generation learn from."""
        return self.generation(generation) / "selection.json"

    def score_parts(self, data: DataSet, student: CandidateName) -> Path:
        """Folder with the scores of each sequence, from which the scores file is made."""
        return self.scores_file(data, student).with_suffix("")


def write_scores(path: Path, scored: Sequence[Scored]) -> None:
    """Write the scores of soft masks as JSON, in their order."""
    write_json(path, {item.mask: item.score for item in scored})


def read_scores(path: Path) -> list[Scored]:
    """Read what `write_scores` wrote."""
    return [Scored(mask, score) for mask, score in read_json(path).items()]
