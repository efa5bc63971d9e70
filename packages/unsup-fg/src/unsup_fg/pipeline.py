"""Both iterations in one run: from unlabelled videos to students of the second generation (specification, section 1).

Each stage leaves files in the output folder. What is there is finished and is not computed again, and a stage that was
interrupted goes on where it was. All processes that torchrun started take part.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from tqdm import tqdm

from unsup_fg.agreement import labelled, write_evalseg_records
from unsup_fg.checkpoints import load_weights
from unsup_fg.inference import SegmenterSettings, VideoPCASegmenter
from unsup_fg.labelling import soft_label_output, write_student_masks
from unsup_fg.method import VIDEOPCA
from unsup_fg.pipeline_settings import PipelineSettings
from unsup_fg.records import Grey, Records, shard_paths, wanted_frames, write_student_records
from unsup_fg.scoring import frame_scores
from unsup_fg.selection import (
    Scored,
    SelectedSet,
    best_first,
    best_share,
    mask_scores,
    read_selection,
    read_soft_mask,
    write_selection,
)
from unsup_fg.settings import NetworkName, StudentName
from unsup_fg.students import Student
from unsup_fg.training import train
from unsup_fg.videopca import SHORTEST_SHOT
from vos_shared.atomic import atomic_path, write_json
from vos_shared.checkpoints import safetensors_io
from vos_shared.datasets import VideoSequence
from vos_shared.errors import BadDataset, UserError
from vos_shared.files import read_json
from vos_shared.processing import bar_hidden, process
from vos_shared.results import SOFT_MASKS, ResultsTree
from vos_shared.runtime.device import choose_precision
from vos_shared.runtime.distributed import shard
from vos_shared.tables import listed
from vos_shared.training.agreement import FAILURES, attempt, most_urgent, only_run, own_or_other, together
from vos_shared.training.arguments import RESUME, RunOptions
from vos_shared.training.run import LAST
from vos_shared.video import Video
from vos_shared.video_sources import frame_files, matching_paths

if TYPE_CHECKING:
    from lightning_fabric import Fabric


T = TypeVar("T")

RECORD: Final = "run.json"
"""Settings and videos of the run in a folder."""
LABELLED_FRAMES: Final = 10_000
"""Frames, evenly spread, from whose masks EvalSeg-Net learns. Ours."""


@dataclass(frozen=True)
class DataSet:
    """Videos that compete with each other in the selection.

    Attributes:
        name: its folder name in the output.
        sequences: the videos, whose names differ in the whole run.
    """

    name: str
    sequences: tuple[VideoSequence, ...]


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
        self.output, self.settings, self.fabric = output.resolve(), settings, fabric
        self._dtype = choose_precision(precision, fabric.device)
        self._minutes, self._workers = minutes, workers
        self._stage, self._stages = 0, 9 + 3 * len(settings.students) + len(settings.second)

    def run(self, places: Sequence[Path]) -> Outcome:
        """Do what is not done yet.

        Args:
            places: data sets: folders of videos, videos or patterns, see `vos_shared.training.videos.found_videos`.

        Raises:
            UserError: another run in the folder, other settings or videos than before, no usable video.
            KeyboardInterrupt: asked to stop; the run can go on.
        """
        with only_run(self.output, self.fabric):
            self._require_same("settings", asdict(self.settings))
            found, unreadable = self._found(places)
            sets, left_out = self._taught(found, unreadable)
            self._select_teacher(sets)
            self._write_records(1, sets)
            for name in self.settings.students:
                self._train(name, 1)
            for name in self.settings.students:
                self._write_masks(name, sets)
            self._write_labels(sets)
            self._train("evalseg", 1)
            for name in self.settings.students:
                self._score(name, sets)
            self._select_students(sets)
            self._write_records(2, sets)
            for name in self.settings.second:
                self._train(name, 2)
            weights = self._gather_weights()
            page = self._write_page(sets, left_out, unreadable)
        return Outcome(weights, page, left_out, unreadable)

    # Folders and files.

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
        settings = {"method": "videopca", "size": self.settings.size}
        return ResultsTree(self.generation(1) / "teacher" / data.name, settings=settings, kind=SOFT_MASKS)

    def student_masks(self, student: StudentName, data: DataSet) -> ResultsTree:
        """Soft masks of a student of the first generation."""
        settings = {"method": "unsup-fg", "student": student}
        return ResultsTree(self.generation(1) / "masks" / student / data.name, settings=settings, kind=SOFT_MASKS)

    def scores_file(self, data: DataSet, student: StudentName | None = None) -> Path:
        """Scores of the soft masks of a data set, those of VideoPCA or of a student."""
        folder = self.generation(1 if student is None else 2) / "scores"
        return (folder if student is None else folder / student) / f"{data.name}.json"

    # Stages, in their order.

    def _found(self, places: Sequence[Path]) -> tuple[list[DataSet], dict[str, str]]:
        """The data sets, with names that differ, and the videos that cannot be decoded."""
        from vos_shared.training.videos import found_videos

        self._begin("videos")
        unreadable: dict[str, str] = {}

        def find() -> list[list[Video]]:
            unreadable.clear()
            return [
                found_videos([place], self.output, self.settings.shorter_side, lambda path, why: _note(path.name, why))
                for place in places
            ]

        def _note(name: str, why: UserError) -> None:
            unreadable[name] = str(why)

        set_names, names = _Names(), _Names()
        found = together(find, self.fabric)
        sets = [
            DataSet(set_names(place.name), tuple(VideoSequence(names(video.name), video, {}) for video in videos))
            for place, videos in zip(places, found, strict=True)
        ]
        videos = {item.name: {one.name: one.video.fingerprint() for one in item.sequences} for item in sets}
        self._require_same("videos", videos)
        return sets, unreadable

    def _taught(self, found: Sequence[DataSet], unreadable: dict[str, str]) -> tuple[list[DataSet], dict[str, str]]:
        """Let VideoPCA label all videos; what is left of the data sets, and the videos that are too short."""
        self._begin("teacher: VideoPCA")
        left_out = {
            item.name: f"{len(item.frame_names)} frames, less than {SHORTEST_SHOT}"
            for data in found
            for item in data.sequences
            if len(item.frame_names) < SHORTEST_SHOT
        }
        sets = [_without(data, left_out) for data in found]
        notes = self.output / "unreadable"
        together(lambda: shutil.rmtree(notes, ignore_errors=True), self.fabric)

        def label() -> None:
            segmenter = VideoPCASegmenter(SegmenterSettings(size=self.settings.size), self.fabric.device)
            for data in sets:
                process(
                    shard(data.sequences),
                    segmenter,
                    [soft_label_output(self.teacher_masks(data), segmenter)],
                    supervision=VIDEOPCA.supervision,
                    device=self.fabric.device,
                    failed=lambda sequence, why: write_json(notes / f"{sequence.name}.json", str(why)),
                )

        self._everywhere(label)
        unreadable |= {path.stem: read_json(path) for path in sorted(notes.glob("*.json"))}
        sets = [data for data in (_without(data, unreadable) for data in sets) if data.sequences]
        if self.settings.every > 1:
            sets = [_thinned(data, self.settings.every) for data in sets]
        if not sets:
            why = next(iter((unreadable | left_out).values()), "")
            raise BadDataset(f"unsup-fg: none of the videos can be used; the first: {why}")
        return sets, left_out

    def _select_teacher(self, sets: Sequence[DataSet]) -> None:
        """Keep the masks of VideoPCA whose pixels that are not zero have the highest mean."""
        self._begin("selection: the best masks of VideoPCA")

        def select() -> None:
            kept = []
            for data in sets:
                soft = self.teacher_masks(data).root
                scored = mask_scores(soft, _mask_names(data))
                ranked = best_first(item for item in scored if item.score)
                _write_scores(self.scores_file(data), ranked)
                best = tuple(best_share(ranked, self.settings.top))
                kept.append(SelectedSet(str(soft), len(scored), len(scored) - len(ranked), best))
            if not any(item.kept for item in kept):
                raise BadDataset("unsup-fg: all masks of VideoPCA are empty; give other videos")
            write_selection(self.selection_file(1), kept)

        self._once(self.selection_file(1), select)

    def selection_file(self, generation: int) -> Path:
        """What the students of a generation learn from."""
        return self.generation(generation) / "selection.json"

    def _write_records(self, generation: int, sets: Sequence[DataSet]) -> None:
        self._begin(f"records of generation {generation}")
        folder = self.records_folder("lowres", generation)
        selected = read_selection(self.selection_file(generation))

        def write() -> None:
            with self._bar(sum(len(item.kept) for item in selected), "record") as bar:
                write_student_records(_sequences(sets), selected, folder, self.settings.shards, bar.update)

        self._once_shards(folder, write)

    def _train(self, network: NetworkName, generation: int) -> None:
        """Train a network, or go on with it."""
        self._begin(f"training of {network}, generation {generation}")
        folder, settings = self.training_folder(network, generation), self.settings.training(network)

        def begun() -> bool:
            """Whether there is a run to go on with; what a killed one left before its first save is removed."""
            if (folder / RESUME).is_file():
                return True
            shutil.rmtree(folder, ignore_errors=True)
            return False

        if together(lambda: _steps_done(folder / LAST) == settings.steps, self.fabric):
            return
        resume = together(begun, self.fabric)
        records = Records(self.records_folder(network, generation))
        options = RunOptions(folder, resume, self._minutes, self._workers, f"{len(records)} of this run's videos")
        if train(self.settings.architecture(network), records, settings, options, self.fabric) is None:
            raise KeyboardInterrupt

    def _write_masks(self, student: StudentName, sets: Sequence[DataSet]) -> None:
        """Let a student of the first generation segment all frames."""
        self._begin(f"masks of {student}")

        def write() -> None:
            network = self.loaded(student, 1)
            with self._bar(sum(len(item.frame_names) for item in shard(_sequences(sets))), "frame") as bar:
                for data in sets:
                    write_student_masks(network, shard(data.sequences), self.student_masks(student, data), bar.update)

        self._everywhere(write)

    def _write_labels(self, sets: Sequence[DataSet]) -> None:
        """Label soft masks by their agreement with all students."""
        self._begin("labels: how far the students agree")
        folder = self.records_folder("evalseg", 1)
        every = -(-sum(len(item.frame_names) for item in _sequences(sets)) // LABELLED_FRAMES)

        def records() -> Iterator[Any]:
            for data in sets:
                teacher = self.teacher_masks(data).root
                trees = {name: self.student_masks(name, data).root for name in self.settings.students}
                wanted = {f"{item.name}/{name}.png" for item in data.sequences for name in item.frame_names[::every]}
                for name, frame in wanted_frames(data.sequences, wanted):
                    masks: dict[str, Grey] = {student: read_soft_mask(root / name) for student, root in trees.items()}
                    yield from labelled(name, frame, masks, read_soft_mask(teacher / name))

        def write() -> None:
            with self._bar(None, "record") as bar:
                if not write_evalseg_records(records(), folder, self.settings.shards, bar.update):
                    raise BadDataset("unsup-fg: no student finds anything; train them for more --steps")

        self._once_shards(folder, write)

    def _score(self, student: StudentName, sets: Sequence[DataSet]) -> None:
        """Let EvalSeg-Net score the masks of a student."""
        self._begin(f"scores of the masks of {student}")

        def score() -> None:
            evalseg = self.loaded("evalseg", 1)
            with self._bar(sum(len(item.frame_names) for item in shard(_sequences(sets))), "mask") as bar:
                for data in sets:
                    root, parts = self.student_masks(student, data).root, self._parts(data, student)
                    for item in shard(data.sequences):
                        if not (path := parts / f"{item.name}.json").is_file():
                            _write_scores(path, list(frame_scores(evalseg, item, root)))
                        bar.update(len(item.frame_names))

        def gather() -> None:
            for data in sets:
                parts = [self._parts(data, student) / f"{item.name}.json" for item in data.sequences]
                scores = [score for part in parts for score in _read_scores(part)]
                _write_scores(self.scores_file(data, student), best_first(scores))

        if together(lambda: all(self.scores_file(data, student).is_file() for data in sets), self.fabric):
            return
        self._everywhere(score)
        together(gather, self.fabric)

    def _parts(self, data: DataSet, student: StudentName) -> Path:
        """Scores of each sequence, until those of all are there."""
        return self.scores_file(data, student).with_suffix("")

    def _select_students(self, sets: Sequence[DataSet]) -> None:
        """Keep the masks of students that EvalSeg-Net finds best, in each data set over all students."""
        self._begin("selection: the best masks of the students")

        def select() -> None:
            kept = [found for data in sets for found in self._best_of(data)]
            write_selection(self.selection_file(2), kept)

        self._once(self.selection_file(2), select)

    def _best_of(self, data: DataSet) -> Iterator[SelectedSet]:
        scores = {name: _read_scores(self.scores_file(data, name)) for name in self.settings.students}
        ranked = sorted(
            ((item, name) for name, items in scores.items() for item in items),
            key=lambda pair: (-pair[0].score, pair[0].mask, pair[1]),
        )
        if self.settings.one_mask:
            ranked = list({item.mask: (item, name) for item, name in reversed(ranked)}.values())[::-1]
        best = ranked[: max(1, round(self.settings.top * len(ranked)))]
        count = sum(len(item.frame_names) for item in data.sequences)
        for student, items in scores.items():
            kept = tuple(item for item, name in best if name == student)
            yield SelectedSet(str(self.student_masks(student, data).root), count, count - len(items), kept)

    def _gather_weights(self) -> Path:
        """Put the newest weights of each network in one folder, from which all variants can be loaded."""
        folder = self.output / "weights"

        def gather() -> None:
            folder.mkdir(exist_ok=True)
            networks: list[NetworkName] = ["evalseg", *self.settings.students, *self.settings.second]
            for network in networks:
                generation = 2 if network in self.settings.second else 1
                with atomic_path(folder / f"{network}.safetensors") as path:
                    shutil.copyfile(self.training_folder(network, generation) / LAST, path)

        together(gather, self.fabric)
        return folder

    def _write_page(self, sets: Sequence[DataSet], left_out: dict[str, str], unreadable: dict[str, str]) -> Path:
        from unsup_fg.page import write_page

        self._begin("page")
        path = self.output / "report.html"
        together(lambda: write_page(path, self, sets, left_out, unreadable), self.fabric)
        return path

    # How stages run.

    def loaded(self, network: NetworkName, generation: int) -> Student:
        """A trained network of this run."""
        snapshot = load_weights(self.training_folder(network, generation) / LAST, [network])
        return Student(snapshot.network, snapshot.architecture.input_size, self.fabric.device, self._dtype)

    def _begin(self, what: str) -> None:
        self._stage += 1
        if self.fabric.is_global_zero:
            print(f"[{self._stage}/{self._stages}] {what}", flush=True)

    @contextmanager
    def _bar(self, total: int | None, unit: str) -> Iterator[tqdm[Any]]:
        with tqdm(total=total, unit=unit, disable=bar_hidden()) as bar:
            yield bar

    def _everywhere(self, work: Callable[[], T]) -> T:
        """Do a share of the work in every process; all succeed, or none goes on."""
        result = attempt(work)
        if most_urgent(int(isinstance(result, FAILURES)), self.fabric):
            raise own_or_other(result)
        return result  # type: ignore[return-value]  # It is not a failure.

    def _once(self, product: Path, work: Callable[[], object]) -> None:
        """Do, in the first process, work that ends with writing a file, unless it is there."""
        together(lambda: product.exists() or work(), self.fabric)

    def _once_shards(self, folder: Path, work: Callable[[], object]) -> None:
        paths = shard_paths(folder, self.settings.shards)
        together(lambda: all(path.is_file() for path in paths) or work(), self.fabric)

    def _require_same(self, what: str, now: dict[str, Any]) -> None:
        """Write down what the run is made with, or refuse another one in its folder."""
        path = self.output / f"{what}.json"
        now = json.loads(json.dumps(now))

        def compare() -> None:
            if not path.exists():
                write_json(path, now)
                return
            before = read_json(path)
            if before != now:
                other = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
                raise UserError(
                    f"unsup-fg: {self.output} holds a run with other {what} ({listed(other)}); choose another --output"
                )

        together(compare, self.fabric)


class _Names:
    """Makes names different: x, x-2, x-3."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def __call__(self, wanted: str) -> str:
        name, count = wanted, 1
        while name in self._taken:
            count += 1
            name = f"{wanted}-{count}"
        self._taken.add(name)
        return name


def _sequences(sets: Sequence[DataSet]) -> list[VideoSequence]:
    return [item for data in sets for item in data.sequences]


def _without(data: DataSet, names: dict[str, str]) -> DataSet:
    return DataSet(data.name, tuple(item for item in data.sequences if item.name not in names))


def _thinned(data: DataSet, every: int) -> DataSet:
    """Every so many frames of each video; the teacher has seen them all."""
    return DataSet(
        data.name, tuple(VideoSequence(one.name, _thinned_video(one.video, every), {}) for one in data.sequences)
    )


def _thinned_video(video: Video, every: int) -> Video:
    files = frame_files(Path(video.origin)) if Path(video.origin).is_dir() else matching_paths(video.origin)
    return Video.from_files(files[::every], name=video.name, origin=video.origin)


def _mask_names(data: DataSet) -> list[str]:
    return [f"{item.name}/{name}.png" for item in data.sequences for name in item.frame_names]


def _steps_done(weights: Path) -> int | None:
    return int(safetensors_io.read_metadata(weights)["steps"]) if weights.is_file() else None


def _write_scores(path: Path, scored: Sequence[Scored]) -> None:
    write_json(path, {item.mask: item.score for item in scored})


def _read_scores(path: Path) -> list[Scored]:
    return [Scored(mask, score) for mask, score in read_json(path).items()]
