"""Both iterations in one run: from unlabelled videos to students of the second generation (specification, section 1).

Each stage leaves files in the output folder. What is there is finished and is not computed again, and a stage that was
interrupted goes on where it was. All processes that torchrun started take part.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from unsup_fg.agreement import labels_of, write_evalseg_records
from unsup_fg.checkpoints import load_weights
from unsup_fg.data_sets import (
    DataSet,
    all_sequences,
    fingerprints,
    found_sets,
    frame_count,
    thinned,
    too_short,
    without,
)
from unsup_fg.labelling import write_consensus, write_student_masks
from unsup_fg.pipeline_settings import PipelineSettings
from unsup_fg.records import Records, shard_paths, write_student_records
from unsup_fg.run_folder import RunFolder, read_scores, write_scores
from unsup_fg.run_processes import everywhere, once_all, progress, require_same
from unsup_fg.scoring import frame_scores
from unsup_fg.selection import (
    SelectedSet,
    best_first,
    best_of_students,
    read_selection,
    write_selection,
)
from unsup_fg.settings import CandidateName, NetworkName, StudentName
from unsup_fg.students import Student
from unsup_fg.teacher import label_videos, select_masks
from unsup_fg.time_left import TimeLeft
from unsup_fg.training import train
from vos_shared.atomic import atomic_path
from vos_shared.checkpoints import safetensors_io
from vos_shared.errors import BadDataset
from vos_shared.runtime.device import choose_precision
from vos_shared.runtime.distributed import shard
from vos_shared.training.agreement import only_run, together
from vos_shared.training.arguments import RESUME, RunOptions
from vos_shared.training.run import LAST

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class Outcome:
    """What a run leaves.

    Attributes:
        weights: folder with the weights of the newest student of each kind and of EvalSeg-Net.
        page: HTML file on what each stage kept.
        left_out: videos that are too short, by name, and why.
        unreadable: videos that cannot be read, by name, and why.
    """

    weights: Path
    page: Path
    left_out: dict[str, str]
    unreadable: dict[str, str]


class Pipeline:
    """The stages of a run in a folder.

    Args:
        output: folder of the run.
        settings: of all stages.
        fabric: launched; decides device and processes.
        precision: ``fp32``, ``bf16`` or ``fp16``, of networks that do not train; training takes that of `fabric`.
        minutes: wall time between two saves of a training.
        workers: processes that read records.
    """

    def __init__(
        self,
        output: Path,
        settings: PipelineSettings,
        fabric: Fabric,
        *,
        precision: str = "fp32",
        minutes: float = 5.0,
        workers: int = 0,
    ) -> None:
        self.folder = RunFolder(output.resolve(), settings.size)
        self.settings, self.fabric = settings, fabric
        self._dtype = choose_precision(precision, fabric.device)
        self._minutes, self._workers = minutes, workers
        self._stage = 0
        self._stages = 9 + 2 * len(settings.students) + len(settings.second)
        self._stages += 2 if settings.consensus else len(settings.students)
        self._time_left = TimeLeft(settings)

    def run(self, places: Sequence[Path]) -> Outcome:
        """Do what is not done yet.

        Args:
            places: data sets: folders of videos, videos or patterns, see `vos_shared.training.videos.found_videos`.

        Raises:
            UserError: another run in the folder, other settings or videos than before, no usable video.
            KeyboardInterrupt: asked to stop; the run can go on.
        """
        with only_run(self.folder.output, self.fabric):
            require_same(self.folder.output, "settings", asdict(self.settings), self.fabric)
            found, unreadable = self._found(places)
            left_out = too_short(found)
            sets = self._taught([without(data, left_out) for data in found], unreadable)
            self._time_left.frames = frame_count(shard(all_sequences(sets)))
            if not sets:
                why = next(iter((unreadable | left_out).values()), "")
                raise BadDataset(f"unsup-fg: none of the videos can be used; the first: {why}")
            self._select_teacher(sets)
            self._write_records(1, sets)
            for name in self.settings.students:
                self._train(name, 1)
            for name in self.settings.students:
                self._write_masks(name, sets)
            self._write_labels(sets)
            self._train("evalseg", 1)
            if self.settings.consensus:
                self._write_consensus(sets)
            for candidate in self.settings.candidates:
                self._score(candidate, sets)
            self._select_students(sets)
            self._write_records(2, sets)
            for name in self.settings.second:
                self._train(name, 2)
            weights = self._gather_weights()
            page = self._write_page(sets, left_out, unreadable)
        return Outcome(weights, page, left_out, unreadable)

    # Stages, in their order.

    def _found(self, places: Sequence[Path]) -> tuple[list[DataSet], dict[str, str]]:
        """Find the data sets, and the videos that cannot be decoded; they must be those of the run so far."""
        self._begin("videos")
        sets, unreadable = together(
            lambda: found_sets(places, self.folder.output, self.settings.shorter_side), self.fabric
        )
        require_same(self.folder.output, "videos", fingerprints(sets), self.fabric)
        return sets, unreadable

    def _taught(self, found: Sequence[DataSet], unreadable: dict[str, str]) -> list[DataSet]:
        """Let VideoPCA label all videos; those that it cannot read are added to `unreadable`."""
        self._begin("teacher: VideoPCA")
        unreadable |= label_videos(found, self.folder, self.fabric)
        sets = [data for data in (without(data, unreadable) for data in found) if data.sequences]
        return [thinned(data, self.settings.every) for data in sets] if self.settings.every > 1 else sets

    def _select_teacher(self, sets: Sequence[DataSet]) -> None:
        """Keep the masks of VideoPCA whose pixels that are not zero have the highest mean."""
        self._begin("selection: the best masks of VideoPCA")
        selection = self.folder.selection_file(1)
        once_all([selection], lambda: select_masks(sets, self.folder, self.settings.top), self.fabric)

    def _write_records(self, generation: int, sets: Sequence[DataSet]) -> None:
        self._begin(f"records of generation {generation}")
        folder = self.folder.records_folder("lowres", generation)
        selected = read_selection(self.folder.selection_file(generation))

        def write() -> None:
            with progress(sum(len(item.kept) for item in selected), "record") as bar:
                write_student_records(all_sequences(sets), selected, folder, self.settings.shards, bar.update)

        once_all(shard_paths(folder, self.settings.shards), write, self.fabric)

    def _train(self, network: NetworkName, generation: int) -> None:
        """Train a network, or go on with it."""
        self._begin(f"training of {network}, generation {generation}")
        folder, settings = self.folder.training_folder(network, generation), self.settings.training(network)

        def begun() -> bool:
            """Whether there is a run to go on with; what a killed one left before its first save is removed."""
            if (folder / RESUME).is_file():
                return True
            shutil.rmtree(folder, ignore_errors=True)
            return False

        self._time_left.trainings.remove(network)
        if together(lambda: _steps_done(folder / LAST) == settings.steps, self.fabric):
            return
        started = time.monotonic()
        resume = together(begun, self.fabric)
        records = Records(self.folder.records_folder(network, generation))
        options = RunOptions(folder, resume, self._minutes, self._workers, f"{len(records)} of this run's videos")
        if train(self.settings.architecture(network), records, settings, options, self.fabric) is None:
            raise KeyboardInterrupt
        if not resume:
            self._time_left.trained(network, time.monotonic() - started)

    def _write_masks(self, student: StudentName, sets: Sequence[DataSet]) -> None:
        """Let a student of the first generation segment all frames."""
        self._begin(f"masks of {student}")
        self._time_left.inferences.remove(student)

        def write() -> None:
            network = self.loaded(student, 1)
            with progress(frame_count(shard(all_sequences(sets))), "frame") as bar:
                for data in sets:
                    write_student_masks(
                        network, shard(data.sequences), self.folder.student_masks(student, data), bar.update
                    )

        everywhere(write, self.fabric)

    def _write_labels(self, sets: Sequence[DataSet]) -> None:
        """Label soft masks by their agreement with all students."""
        self._begin("labels: how far the students agree")
        folder = self.folder.records_folder("evalseg", 1)
        records = labels_of(sets, self.folder, self.settings.students)

        def write() -> None:
            with progress(None, "record") as bar:
                if not write_evalseg_records(records, folder, self.settings.shards, bar.update):
                    raise BadDataset("unsup-fg: no student finds anything; train them for more --steps")

        once_all(shard_paths(folder, self.settings.shards), write, self.fabric)

    def _write_consensus(self, sets: Sequence[DataSet]) -> None:
        """Write the mean of all soft masks of each frame."""
        self._begin("consensus of VideoPCA and the students")

        def write() -> None:
            with progress(frame_count(shard(all_sequences(sets))), "mask") as bar:
                for data in sets:
                    students = [self.folder.student_masks(name, data).root for name in self.settings.students]
                    tree, teacher = self.folder.student_masks("consensus", data), self.folder.teacher_masks(data).root
                    for item in shard(data.sequences):
                        write_consensus(item, teacher, students, tree)
                        bar.update(len(item.frame_names))

        everywhere(write, self.fabric)

    def _score(self, student: CandidateName, sets: Sequence[DataSet]) -> None:
        """Let EvalSeg-Net score the masks of a student, or the consensus."""
        self._begin("scores of the consensus" if student == "consensus" else f"scores of the masks of {student}")
        self._time_left.inferences.remove("evalseg")

        def score() -> None:
            evalseg = self.loaded("evalseg", 1)
            with progress(frame_count(shard(all_sequences(sets))), "mask") as bar:
                for data in sets:
                    root, parts = self.folder.student_masks(student, data).root, self.folder.score_parts(data, student)
                    for item in shard(data.sequences):
                        if not (path := parts / f"{item.name}.json").is_file():
                            write_scores(path, list(frame_scores(evalseg, item, root)))
                        bar.update(len(item.frame_names))

        def gather() -> None:
            for data in sets:
                parts = [self.folder.score_parts(data, student) / f"{item.name}.json" for item in data.sequences]
                scores = [score for part in parts for score in read_scores(part)]
                write_scores(self.folder.scores_file(data, student), best_first(scores))

        if together(lambda: all(self.folder.scores_file(data, student).is_file() for data in sets), self.fabric):
            return
        everywhere(score, self.fabric)
        together(gather, self.fabric)

    def _select_students(self, sets: Sequence[DataSet]) -> None:
        """Keep the masks that EvalSeg-Net finds best, in each data set over all students."""
        self._begin("selection: the best masks of the students")

        def select() -> None:
            kept = [found for data in sets for found in self._best_of(data)]
            write_selection(self.folder.selection_file(2), kept)

        once_all([self.folder.selection_file(2)], select, self.fabric)

    def _best_of(self, data: DataSet) -> Iterator[SelectedSet]:
        scores = {name: read_scores(self.folder.scores_file(data, name)) for name in self.settings.candidates}
        best = best_of_students(scores, self.settings.top_of_second)
        count = frame_count(data.sequences)
        for student, items in scores.items():
            soft = self.folder.student_masks(student, data).root
            yield SelectedSet(str(soft), count, count - len(items), tuple(best[student]))

    def _gather_weights(self) -> Path:
        """Put the newest weights of each network in one folder, from which all variants can be loaded."""
        folder = self.folder.output / "weights"

        def gather() -> None:
            folder.mkdir(exist_ok=True)
            networks: list[NetworkName] = ["evalseg", *self.settings.students, *self.settings.second]
            for network in networks:
                generation = 2 if network in self.settings.second else 1
                with atomic_path(folder / f"{network}.safetensors") as path:
                    shutil.copyfile(self.folder.training_folder(network, generation) / LAST, path)

        together(gather, self.fabric)
        return folder

    def _write_page(self, sets: Sequence[DataSet], left_out: dict[str, str], unreadable: dict[str, str]) -> Path:
        from unsup_fg.page import write_page

        self._begin("page")
        path = self.folder.output / "report.html"
        together(lambda: write_page(path, self, sets, left_out, unreadable), self.fabric)
        return path

    # How stages run.

    def loaded(self, network: NetworkName, generation: int) -> Student:
        """A trained network of this run."""
        snapshot = load_weights(self.folder.training_folder(network, generation) / LAST, [network])
        return Student(snapshot.network, snapshot.architecture.input_size, self.fabric.device, self._dtype)

    def _begin(self, what: str) -> None:
        self._stage += 1
        if self.fabric.is_global_zero:
            seconds = self._time_left.seconds()
            left = "" if seconds is None else f"; about {tqdm.format_interval(seconds)} left for the whole run"
            print(f"[{self._stage}/{self._stages}] {what}{left}", flush=True)


def _steps_done(weights: Path) -> int | None:
    return int(safetensors_io.read_metadata(weights)["steps"]) if weights.is_file() else None
