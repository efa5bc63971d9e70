"""Scoring of a folder of masks against a data set; does not import torch, to start fast and need little memory.

A results folder holds `<sequence>/<frame>.png` with the object ids of the data set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tqdm import tqdm

from vos_shared.errors import BadDataset, BadMask, BadResults, UserError
from vos_shared.folders import mask_files
from vos_shared.masks import VOID, describe_size, ids_of, read_mask, read_truth
from vos_shared.method import ObjectMask
from vos_shared.metrics.davis import Evaluator, Foreground, SemiSupervised, Unsupervised
from vos_shared.metrics.scores import Item, Scores
from vos_shared.metrics.youtube_objects import MeanIU, resized
from vos_shared.results import require_masks
from vos_shared.runtime.parents import process_pool
from vos_shared.tables import listed

if TYPE_CHECKING:
    from vos_shared.datasets.sequence import VideoSequence

FOREGROUND: Final = "davis2016"
OBJECTS: Final = "davis2017"
PROPOSALS: Final = "davis2017-unsupervised"
YOUTUBE_OBJECTS: Final = "youtube-objects"
SEGTRACK: Final = "segtrack-v2"
FBMS: Final = "fbms59"

_SCORED: Final = {
    FOREGROUND: slice(1, -1),
    OBJECTS: slice(1, -1),
    PROPOSALS: slice(None),
    YOUTUBE_OBJECTS: slice(1, None),
    SEGTRACK: slice(None),
    FBMS: slice(None),
}
"""The annotated frames that are scored."""

_REGION_ONLY: Final = frozenset({YOUTUBE_OBJECTS, SEGTRACK, FBMS})
"""Protocols with one foreground and without F."""

PROTOCOLS: Final = tuple(_SCORED)


def evaluate(
    dataset: str, sequences: Sequence[VideoSequence], results: str | Path, *, workers: int = 1, progress: bool = True
) -> Scores:
    """Score the masks of every sequence.

    Args:
        dataset: the protocol. ``davis2016`` scores the union of all ids as one foreground, ``davis2017`` each object;
            both skip the first and the last annotated frame, whose predictions may be missing.
            ``davis2017-unsupervised`` assigns proposals to objects and scores every annotated frame.
            ``youtube-objects`` measures J of one foreground in every annotated frame but the first, with predictions of
            any size; sequences with a single annotated frame are skipped. ``segtrack-v2`` and ``fbms59`` measure J of
            one foreground (all objects) in every annotated frame.
        sequences: sequences of the data set.
        results: folder of predicted masks.
        workers: number of processes.
        progress: show a progress bar if standard error is a terminal.

    Returns:
        Scores in the order of the sequences, for any number of workers.

    Raises:
        BadResults: missing masks (all are named), a mask of another size, or too many proposals.
        BadMask: a mask cannot be read.
        BadDataset: there is no sequence, or nothing to score in one.
    """
    if workers < 1:
        raise UserError(f"workers must be at least 1, not {workers}")
    if not sequences:
        raise BadDataset("there is no sequence to evaluate")
    if dataset not in PROTOCOLS:
        raise UserError(f"no protocol is called {dataset!r}; there is {', '.join(PROTOCOLS)}")
    if dataset == YOUTUBE_OBJECTS:
        sequences = [sequence for sequence in sequences if len(sequence.annotations) > 1] or sequences
    jobs = [_job(dataset, sequence, Path(results)) for sequence in sequences]
    require_masks(results, {job.sequence: [frame.name for frame in job.frames] for job in jobs})
    bar = partial(tqdm, total=sum(len(job.frames) for job in jobs), unit="frame", disable=None if progress else True)
    workers = min(workers, len(jobs))
    scored = _score_in_processes(jobs, workers, bar) if workers > 1 else _score_here(jobs, bar)
    return Scores.of(dataset, chain.from_iterable(scored))


def without_a_true_id(scores: Scores, sequences: Sequence[VideoSequence], results: str | Path) -> list[str]:
    """Sequences of which no object was found because the masks hold other ids, as grey levels 50 and 100 do.

    Args:
        scores: of protocol ``davis2017``.
        sequences: as they were scored.
        results: the folder that was scored.

    Returns:
        A line for each such sequence.
    """
    objects: dict[str, list[Item]] = {}
    for item in scores.items.values():
        objects.setdefault(item.sequence, []).append(item)
    lines = []
    for sequence in sequences:
        items = objects.get(sequence.name, [])
        if not items or any(value > 0 for item in items for value in item.frames.region):
            continue
        masks = mask_files(Path(results) / sequence.name).values()
        found = {object_id for path in masks for object_id in ids_of(read_mask(path))}
        true = {item.object_id for item in items}
        if found and not found & true:
            lines.append(
                f"{sequence.name} scores 0: its masks hold the ids {listed(map(str, sorted(found)))}, the data set's "
                f"objects are {listed(map(str, sorted(sequence.object_ids())))}"
            )
    return lines


@dataclass(frozen=True)
class _Frame:
    name: str
    truth: Path
    prediction: Path


@dataclass(frozen=True)
class _Job:
    """What a worker process needs to score one sequence.

    Attributes:
        protocol: name of the protocol.
        sequence: name of the sequence.
        given: true mask of the first frame.
        binary: all nonzero pixels of the true masks are the foreground.
        read: reads a true mask; None for `read_mask`.
        frames: the scored frames.
    """

    protocol: str
    sequence: str
    given: Path
    binary: bool
    read: Callable[[Path], ObjectMask] | None
    frames: tuple[_Frame, ...]


def _job(protocol: str, sequence: VideoSequence, results: Path) -> _Job:
    names = list(sequence.annotations)
    scored = names[_SCORED[protocol]]
    if not scored:
        if not names:
            raise BadDataset(f"{sequence.name} has no mask to be scored against")
        left_out = "the first" if protocol == YOUTUBE_OBJECTS else "the first and the last"
        raise BadDataset(
            f"{sequence.name} has {len(names)} annotated frames; {protocol} leaves out {left_out} of them "
            "and needs at least one more"
        )
    folder = results / sequence.name
    found = mask_files(folder)
    frames = tuple(_Frame(name, sequence.annotations[name], found.get(name, folder / f"{name}.png")) for name in scored)
    return _Job(protocol, sequence.name, sequence.annotations[names[0]], sequence.binary, sequence.read, frames)


def _score_here(jobs: Sequence[_Job], bar: Callable[[], tqdm[None]]) -> list[list[Item]]:
    with bar() as shown:
        return [_score(job, shown.update) for job in jobs]


def _score_in_processes(jobs: Sequence[_Job], workers: int, bar: Callable[[], tqdm[None]]) -> list[list[Item]]:
    """Items of each job, in order; the longest job starts first, so that no worker ends long after the others."""
    longest_first = sorted(jobs, key=lambda job: len(job.frames), reverse=True)
    with process_pool(workers) as pool:
        futures = {pool.submit(_score, job): job for job in longest_first}  # Before the bar, which has a thread.
        with bar() as shown:
            for done in as_completed(futures):
                done.result()
                shown.update(len(futures[done].frames))
    items = {job: future.result() for future, job in futures.items()}
    return [items[job] for job in jobs]


def _score(job: _Job, advance: Callable[[], object] = lambda: None) -> list[Item]:
    evaluator = _evaluator(job)
    for frame in job.frames:
        truth, prediction = _masks(job, frame)
        try:
            evaluator.add(truth, prediction)
        except BadResults as reason:
            raise BadResults(f"{frame.prediction}: {reason}") from reason
        advance()
    names = tuple(frame.name for frame in job.frames)
    items = [Item(job.sequence, object_id, names, scores) for object_id, scores in evaluator.result().items()]
    if not items:
        raise BadDataset(f"the masks of {job.sequence} hold no object to score; the first of them is {job.given}")
    return items


def _evaluator(job: _Job) -> Evaluator:
    if job.protocol == FOREGROUND:
        return Foreground()
    if job.protocol == PROPOSALS:
        return Unsupervised()
    if job.protocol in _REGION_ONLY:
        return MeanIU()
    return SemiSupervised(read_truth(job.given, job.read, binary=job.binary))


def _masks(job: _Job, frame: _Frame) -> tuple[ObjectMask, ObjectMask]:
    """True and predicted mask of a frame."""
    truth = read_truth(frame.truth, job.read, binary=job.binary)
    prediction = read_mask(frame.prediction, binary=job.protocol == FOREGROUND or job.protocol in _REGION_ONLY)
    if job.protocol == YOUTUBE_OBJECTS:
        prediction = resized(prediction, truth.shape)
    if truth.shape != prediction.shape:
        raise BadResults(
            f"{frame.prediction} is {describe_size(prediction.shape)}, the truth {frame.truth} is "
            f"{describe_size(truth.shape)}; predictions must have the size of the truth"
        )
    if prediction.max() == VOID and not ids_of(prediction):
        raise BadMask(f"{frame.prediction} holds 0 and 255 only; {job.protocol} needs object ids 1..K")
    return truth, prediction
