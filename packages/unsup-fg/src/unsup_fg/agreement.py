"""How far soft masks of an image agree: labels for EvalSeg-Net (specification, section 8), and their consensus."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from unsup_fg.data_sets import DataSet, all_sequences, frame_count
from unsup_fg.records import EvalSegRecord, Grey, resized, shard_paths, wanted_frames
from unsup_fg.run_folder import RunFolder
from unsup_fg.selection import is_centre_ellipse, read_soft_mask
from unsup_fg.settings import StudentName
from unsup_fg.tfrecords import RecordWriter
from vos_shared.method import Frame

SIDE: Final = 128
"""Side of the square on which masks are compared, as EvalSeg-Net sees them."""
LABELLED_FRAMES: Final = 10_000
"""Frames, evenly spread, from whose masks EvalSeg-Net learns. Ours."""


def agreement(mask: Grey, others: Iterable[Grey]) -> float:
    """Compute 100 times the soft intersection over union of a soft mask and the mean of others of the image.

    The published code only shows that labels are 0 to 100; the measure is our choice. Cosines would all be close to 100
    where masks are large and blurred, and a network would learn little from them.

    Args:
        mask: soft mask to be labelled, uint8 [h, w].
        others: soft masks of other students, uint8, of any sizes.

    Returns:
        0 to 100; 0 if all masks are empty.
    """
    mean = np.mean([_compared(other) for other in others], axis=0)
    mine = _compared(mask)
    union = np.maximum(mine, mean).sum()
    return float(100 * np.minimum(mine, mean).sum() / union) if union else 0.0


def _compared(mask: Grey) -> npt.NDArray[Any]:
    image = Image.fromarray(mask).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.asarray(image, np.float64) / 255


def consensus(teacher: Grey, students: Sequence[Grey]) -> Grey:
    """Compute the mean of all soft masks of an image. Ours: their errors differ, so that the mean is better than each.

    Args:
        teacher: soft mask of VideoPCA, uint8 [h, w].
        students: soft masks of the students, uint8, of any sizes.

    Returns:
        uint8, of the size of the largest student's mask; without an object where VideoPCA saw a frame of one colour.
    """
    height, width = max(mask.shape for mask in students)
    if is_centre_ellipse(teacher):
        return np.zeros((height, width), np.uint8)
    images = (Image.fromarray(mask).resize((width, height), Image.Resampling.BILINEAR) for mask in (teacher, *students))
    mean = np.mean([np.asarray(image, np.float32) for image in images], axis=0)
    rounded: Grey = (mean + 0.5).astype(np.uint8)
    return rounded


def labelled(
    name: str, frame: Frame, students: Mapping[str, Grey], teacher: Grey | None = None
) -> Iterator[EvalSegRecord]:
    """Make the records of an image: one for each student's soft mask, and one for the teacher's.

    The teacher's masks are examples of poor masks. An image in which no student finds anything gives no record.

    Args:
        name: name of the frame.
        frame: uint8 RGB [H, W, 3].
        students: soft masks of the students, by name.
        teacher: soft mask of VideoPCA.
    """
    if not any(mask.any() for mask in students.values()):
        return
    masks = {**students, **({} if teacher is None else {"videopca": teacher})}
    for origin, mask in masks.items():
        others = [student for by, student in students.items() if by != origin] or [mask]
        yield EvalSegRecord(f"{origin}/{name}", resized(frame), mask, agreement(mask, others))


def labels_of(sets: Sequence[DataSet], folder: RunFolder, students: Sequence[StudentName]) -> Iterator[EvalSegRecord]:
    """Make the records of a run, from the masks of the students of the first generation and of the teacher.

    Args:
        sets: the videos.
        folder: of the run.
        students: the students.

    Yields:
        The records of at most `LABELLED_FRAMES` frames, or a few more.
    """
    every = -(-frame_count(all_sequences(sets)) // LABELLED_FRAMES)
    for data in sets:
        teacher = folder.teacher_masks(data).root
        trees = {name: folder.student_masks(name, data).root for name in students}
        wanted = {f"{item.name}/{name}.png" for item in data.sequences for name in item.frame_names[::every]}
        for name, frame in wanted_frames(data.sequences, wanted):
            masks: dict[str, Grey] = {student: read_soft_mask(root / name) for student, root in trees.items()}
            yield from labelled(name, frame, masks, read_soft_mask(teacher / name))


def write_evalseg_records(
    records: Iterable[EvalSegRecord], folder: Path, shards: int, advance: Callable[[], object] = lambda: None
) -> int:
    """Write records of EvalSeg-Net as shards; each record goes to a random shard.

    Args:
        records: the records.
        folder: folder for the shards.
        shards: number of shards.
        advance: called after each record.

    Returns:
        The number of records.
    """
    random, count = np.random.default_rng(0), 0
    with RecordWriter(shard_paths(folder, shards)) as writer:
        for record in records:
            writer.write(int(random.integers(shards)), record.example())
            count += 1
            advance()
    return count
