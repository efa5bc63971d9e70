"""Scoring of results by measures of images and whole sets; does not import torch.

`saliency`, `voc2012`, `object-discovery`, `youtube-objects-boxes` (CorLoc), and for any data set the set-wise IoU of
the evaluator released with AMD. `vos_shared.predictions` describes how results are stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
from tqdm import tqdm

from vos_shared.atomic import write_csv, write_json
from vos_shared.errors import BadDataset, BadResults, UserError
from vos_shared.masks import VOID, read_mask
from vos_shared.metrics.detection import CORRECT_ABOVE, best_iou, box_from_mask
from vos_shared.metrics.region import region_similarity
from vos_shared.metrics.saliency import ImageSaliency, Saliency, saliency_of
from vos_shared.metrics.segmentation import FOREGROUND_ABOVE, ConfusionMatrix, mean_known, resized_soft_mask
from vos_shared.predictions import find_predictions, read_prediction, require_size, require_unit_range
from vos_shared.runtime.parents import process_pool
from vos_shared.tables import text_table

if TYPE_CHECKING:
    from vos_shared.datasets.sequence import VideoSequence
    from vos_shared.method import ObjectMask
    from vos_shared.soft_masks import SoftMask

SALIENCY: Final = "saliency"
VOC: Final = "voc2012"
OBJECT_DISCOVERY: Final = "object-discovery"
CORLOC: Final = "youtube-objects-boxes"
SET_PROTOCOLS: Final = (SALIENCY, VOC, OBJECT_DISCOVERY, CORLOC)

Measures = Mapping[str, float]
R = TypeVar("R")


@dataclass(frozen=True)
class SetScores:
    """The result of an evaluation; all measures are in 0..1, NaN if undefined.

    Attributes:
        dataset: name of the protocol.
        summary: measures of the whole set.
        groups: measures by class, if the protocol has classes.
        images: measures by image, if the protocol has some.
        notes: remarks for readers of the figures.
    """

    dataset: str
    summary: Measures
    groups: Mapping[str, Measures] = field(default_factory=dict)
    images: Mapping[str, Measures] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As JSON: ``dataset``, ``summary``, ``groups``, ``images``, ``notes``; None for undefined measures."""
        return {
            "dataset": self.dataset,
            "summary": _without_nan(self.summary),
            "groups": {name: _without_nan(row) for name, row in self.groups.items()},
            "images": {name: _without_nan(row) for name, row in self.images.items()},
            "notes": self.notes,
        }

    def write_json(self, path: str | Path) -> None:
        """Write `to_json` to a file, atomically; creates missing folders."""
        write_json(Path(path), self.to_json())

    def write_csv(self, path: str | Path) -> None:
        """Write a row ``all`` for the set, then one for each group or, without groups, for each image."""
        columns = self._columns()
        named = {"all": self.summary, **(self.groups or self.images)}
        rows = ([name, *(row.get(column, "") for column in columns)] for name, row in named.items())
        write_csv(Path(path), [["name", *columns], *rows])

    def table(self) -> str:
        """The groups and the set in percent, for a terminal; ``-`` for undefined measures."""
        columns = self._columns(images=False)
        rows = [(name, *_percent(row, columns)) for name, row in [*self.groups.items(), ("all", self.summary)]]
        return "\n".join((text_table((self.dataset, *columns), rows), *self.notes))

    def _columns(self, *, images: bool = True) -> list[str]:
        rows = [*self.groups.values(), self.summary, *(list(self.images.values())[:1] if images else [])]
        return list(dict.fromkeys(column for row in rows for column in row))


def _without_nan(row: Measures) -> dict[str, float | None]:
    return {name: None if np.isnan(value) else value for name, value in row.items()}


def _percent(row: Measures, columns: Iterable[str]) -> list[str]:
    values = (row.get(column, float("nan")) for column in columns)
    return ["-" if np.isnan(value) else f"{100 * value:.1f}" for value in values]


@dataclass(frozen=True)
class _Image:
    """What a worker process needs to score an image or frame.

    Attributes:
        name: name of the image, or ``<sequence>/<frame>``.
        frame: name of the frame.
        prediction: its result, see `find_prediction`.
        truth: file of the true mask; None if the data set has none.
        read: reads `truth`.
    """

    name: str
    frame: str
    prediction: Path
    truth: Path | None
    read: Callable[[Path], ObjectMask]

    def truth_mask(self) -> ObjectMask:
        """The true mask, uint8 [H, W]."""
        assert self.truth is not None
        return self.read(self.truth)

    def soft(self, size: Sequence[int] | None = None) -> SoftMask:
        """The result, float32 [H, W]; zeros of this size if `segment` found no object."""
        return read_prediction(self.prediction, self.frame, size)


def evaluate_set(
    dataset: str,
    sequences: Sequence[VideoSequence],
    results: str | Path,
    *,
    root: str | Path | None = None,
    threshold: float = 0.5,
    workers: int = 1,
) -> SetScores:
    """Score the results for every image of a set.

    Args:
        dataset: the protocol, one of `SET_PROTOCOLS`. ``saliency``: MAE, F, S, E and weighted F. ``voc2012``: IoU of
            each class and their mean, without void pixels. ``object-discovery``: P, the share of correct pixels, and J
            of the images with an object. ``youtube-objects-boxes``: CorLoc.
        sequences: sequences of the data set.
        results: folder of predictions.
        root: folder of the data set with its boxes; for ``youtube-objects-boxes`` only.
        threshold: threshold on soft masks for ``object-discovery`` and, after scaling each to 0..1, for CorLoc.
        workers: number of processes.

    Raises:
        BadResults: results are missing (all are named), cannot be read, or differ in size from the truth.
        BadDataset: there is no image, or there are no boxes.
        BadMask: a true mask cannot be read.
    """
    if not 0 < threshold < 1:
        raise UserError(f"threshold is {threshold:g}; it must lie between 0 and 1")
    run = partial(_in_order, workers=workers)
    if dataset == CORLOC:
        if root is None:
            raise UserError("CorLoc needs the folder of the data set, which holds its boxes")
        return _corloc(_images(sequences, Path(results), labelled=False), root, threshold, run)
    images = _images(sequences, Path(results), labelled=dataset != OBJECT_DISCOVERY)
    if dataset == SALIENCY:
        return _saliency(images, run)
    if dataset == VOC:
        return _voc(images, run)
    if dataset == OBJECT_DISCOVERY:
        return _object_discovery(images, threshold, run)
    raise UserError(f"no protocol is called {dataset!r}; there is {', '.join(SET_PROTOCOLS)}")


def evaluate_set_wise(sequences: Sequence[VideoSequence], results: str | Path, *, workers: int = 1) -> SetScores:
    """IoU and accuracy of background and foreground, as in the evaluator released with AMD.

    Soft masks are resized to the size of the truth (bilinear, corners aligned); values above 0.5 are foreground.
    Intersections and unions are summed over all annotated frames. All object ids of the truth are foreground; void
    pixels do not count.

    Args:
        sequences: sequences of any data set with masks.
        results: folder of predictions.
        workers: number of processes.

    Raises:
        BadResults, BadDataset, BadMask: as `evaluate_set`.
    """
    total = ConfusionMatrix(2)
    images = _images(sequences, Path(results), labelled=True)
    for counts in _in_order(_foreground_counts, images, workers=workers):
        total.counts += counts
    iou, accuracy = total.iou(), total.accuracy()
    groups = {
        name: {"IoU": float(iou[k]), "Acc": float(accuracy[k])} for k, name in enumerate(("background", "foreground"))
    }
    summary = {"mIoU": mean_known(iou), "mAcc": mean_known(accuracy), "aAcc": total.pixel_accuracy()}
    return SetScores("set-wise IoU", summary, groups)


_Run = Callable[[Callable[[_Image], Any], Sequence[_Image]], Iterable[Any]]


def _images(sequences: Sequence[VideoSequence], results: Path, *, labelled: bool) -> list[_Image]:
    """The images to score: all frames or, if `labelled`, the frames with a mask."""
    frames = [(s, frame) for s in sequences for frame in (s.annotations if labelled else s.frame_names)]
    if not frames:
        raise BadDataset("there is no image to evaluate")
    found = find_predictions(results, frames)
    return [
        _Image(
            sequence.name if len(sequence.frame_names) == 1 else f"{sequence.name}/{frame}",
            frame,
            path,
            sequence.annotations.get(frame),
            sequence.read or partial(read_mask, binary=sequence.binary),
        )
        for (sequence, frame), path in zip(frames, found, strict=True)
    ]


def _in_order(work: Callable[[_Image], R], images: Sequence[_Image], *, workers: int) -> Iterator[R]:
    """Call `work` on each image in `workers` processes; yields the results in order."""
    if workers < 1:
        raise UserError(f"workers must be at least 1, not {workers}")
    bar = partial(tqdm, total=len(images), unit="image", disable=None)
    if workers == 1:
        yield from bar(map(work, images))
        return
    with process_pool(workers) as pool:
        yield from bar(pool.map(work, images, chunksize=8))


def _saliency(images: Sequence[_Image], run: _Run) -> SetScores:
    total, rows = Saliency(), {}
    for image, scored in zip(images, run(_score_saliency, images), strict=True):
        total.add(scored)
        rows[image.name] = scored.measures
    return SetScores(SALIENCY, total.result(), images=rows)


def _score_saliency(image: _Image) -> ImageSaliency:
    truth = image.truth_mask()
    soft = image.soft(truth.shape)
    require_size(soft, truth.shape, image.prediction, image.truth)
    return saliency_of(truth, soft)


def _voc(images: Sequence[_Image], run: _Run) -> SetScores:
    from vos_shared.datasets.voc import VOC_CLASSES

    total = ConfusionMatrix(len(VOC_CLASSES))
    for counts in run(_class_counts, images):
        total.counts += counts
    iou = total.iou()
    groups = {name: {"IoU": float(value)} for name, value in zip(VOC_CLASSES, iou, strict=True)}
    absent = [name for name, row in groups.items() if np.isnan(row["IoU"])]
    notes = (f"in neither truth nor results, left out of the mean: {', '.join(absent)}",) if absent else ()
    return SetScores(VOC, {"mIoU": mean_known(iou), "pixel accuracy": total.pixel_accuracy()}, groups, notes=notes)


def _class_counts(image: _Image) -> Any:
    from vos_shared.datasets.voc import VOC_CLASSES, read_classes

    if image.prediction.suffix != ".png":
        raise BadResults(f"{image.prediction} is not a PNG; results of {VOC} are PNG files of class ids 0..20")
    truth, predicted = image.truth_mask(), read_classes(image.prediction)
    require_size(predicted, truth.shape, image.prediction, image.truth)
    one = ConfusionMatrix(len(VOC_CLASSES))
    one.add(truth, predicted)
    return one.counts


def _foreground_counts(image: _Image) -> Any:
    truth = image.truth_mask()
    soft = image.soft(truth.shape)
    require_unit_range(soft, image.prediction)
    predicted = resized_soft_mask(soft, (truth.shape[0], truth.shape[1])) > FOREGROUND_ABOVE
    one = ConfusionMatrix(2)
    one.add(np.where(truth == VOID, truth, np.minimum(truth, 1)), predicted.astype(np.uint8))
    return one.counts


def _object_discovery(images: Sequence[_Image], threshold: float, run: _Run) -> SetScores:
    from vos_shared.datasets.object_discovery import class_of

    found = run(partial(_score_object_discovery, threshold=threshold), images)
    rows = {image.name: row for image, row in zip(images, found, strict=True)}
    groups = {}
    for name in dict.fromkeys(map(class_of, rows)):
        group = [row for image, row in rows.items() if class_of(image) == name]
        groups[name] = {key: mean_known(np.array([row[key] for row in group])) for key in ("P", "J")}
    summary = {key: mean_known(np.array([row[key] for row in groups.values()])) for key in ("P", "J")}
    unlabelled = sum(image.truth is None for image in images)
    notes = (
        (f"{unlabelled} of {len(images)} images have no mask file and count as without object",) if unlabelled else ()
    )
    return SetScores(OBJECT_DISCOVERY, summary, groups, rows, notes)


def _score_object_discovery(image: _Image, threshold: float) -> dict[str, float]:
    """P and J of an image; J is NaN if the image has no object."""
    given = None if image.truth is None else image.truth_mask()
    soft = image.soft(None if given is None else given.shape)
    require_unit_range(soft, image.prediction)
    truth = np.zeros(soft.shape, np.uint8) if given is None else given
    require_size(soft, truth.shape, image.prediction, image.truth)
    predicted = soft > threshold
    right = float((predicted == (truth > 0)).mean())
    return {"P": right, "J": region_similarity(truth, predicted) if truth.any() else float("nan")}


def _corloc(images: Sequence[_Image], root: str | Path, threshold: float, run: _Run) -> SetScores:
    from vos_shared.datasets.youtube_objects_boxes import read_boxes

    boxes, rows = read_boxes(root), {}
    hits: dict[str, list[bool]] = {}
    found = run(partial(_box, threshold=threshold), images)
    for image, box in zip(images, found, strict=True):
        group, objects = boxes[image.name]
        rows[image.name] = {"IoU": best_iou(box, objects)}
        hits.setdefault(group, []).append(rows[image.name]["IoU"] > CORRECT_ABOVE)
    groups = {group: {"CorLoc": float(np.mean(found))} for group, found in sorted(hits.items())}
    summary = {"CorLoc": float(np.mean([row["CorLoc"] for row in groups.values()]))}
    return SetScores(CORLOC, summary, groups, rows)


def _box(image: _Image, threshold: float) -> tuple[int, int, int, int]:
    return box_from_mask(image.soft(), threshold)
