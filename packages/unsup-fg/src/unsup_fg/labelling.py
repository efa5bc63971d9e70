"""Writes the masks of many videos: soft masks to learn from, and object masks to be scored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from unsup_fg.agreement import consensus
from unsup_fg.inference import SegmenterSettings, VideoPCASegmenter
from unsup_fg.method import UNSUP_FG, VIDEOPCA
from unsup_fg.selection import read_soft_mask
from unsup_fg.students import Student, batched
from unsup_fg.videopca import VideoPCASettings
from vos_shared.errors import UserError
from vos_shared.inputs import inputs_fingerprint
from vos_shared.processing import Output, mask_output
from vos_shared.provenance import package_digest, weights_digest
from vos_shared.results import SOFT_MASKS, ResultsTree
from vos_shared.sequence_loop import SegmentedFrame

if TYPE_CHECKING:
    from vos_shared.datasets import VideoSequence


def _unseen(frames: int) -> None:
    """Report no progress."""


def label_outputs(segmenter: VideoPCASegmenter, *, masks: Path | None, soft: Path | None) -> list[Output]:
    """Describe the outputs of VideoPCA.

    Args:
        segmenter: the segmenter that will run.
        masks: folder for object masks, palette PNGs of the frames' size, or None.
        soft: folder for soft masks, grey PNGs of the working size, or None.

    Raises:
        UserError: neither folder is given.
    """
    settings = segmenter.settings
    outputs = []
    if masks is not None:
        outputs.append(mask_output(ResultsTree(masks, settings=_made_with(settings, SegmenterSettings))))
    if soft is not None:  # Soft masks do not depend on the threshold.
        tree = ResultsTree(soft, settings=_made_with(settings, VideoPCASettings), kind=SOFT_MASKS)
        outputs.append(soft_label_output(tree, segmenter))
    if not outputs:
        raise UserError("nothing to write; add --output FOLDER for object masks, --soft FOLDER for soft masks")
    return outputs


def soft_label_output(tree: ResultsTree, segmenter: VideoPCASegmenter) -> Output:
    """Describe the output of soft masks for students: ``<sequence>/<frame>.png``, grey, of the working size."""

    def write(folder: Path, item: SegmentedFrame) -> None:
        soft_mask = segmenter.soft_masks[item.index]
        Image.fromarray(soft_mask).save(folder / f"{item.name}.png", format="PNG", compress_level=1)

    return Output(tree, write)


def _made_with(settings: SegmenterSettings, kind: type[VideoPCASettings]) -> dict[str, Any]:
    """Return what masks depend on, except the video."""
    values = {field.name: getattr(settings, field.name) for field in fields(kind)}
    return {
        "method": "videopca",
        "version": version("unsup-fg"),
        "package_digest": package_digest(VIDEOPCA),
        **values,
    }


def student_tree(folder: Path, weights: str | None, precision: str) -> ResultsTree:
    """Make the results tree of a student's soft masks.

    Args:
        folder: folder of the tree.
        weights: weights as given by the user.
        precision: precision of the network.
    """
    settings = {
        "method": "unsup-fg",
        "version": version("unsup-fg"),
        "package_digest": package_digest(UNSUP_FG),
        "weights_digest": weights_digest(weights),
        "precision": precision,
    }
    return ResultsTree(folder, settings=settings, kind=SOFT_MASKS)


def write_student_masks(
    student: Student, sequences: Sequence[VideoSequence], tree: ResultsTree, advance: Callable[[int], object] = _unseen
) -> None:
    """Write the soft masks of a student, ``<sequence>/<frame>.png``, grey, at the size of its maps, in batches.

    EvalSeg-Net scores them, and the next generation learns from them. Finished sequences are skipped.

    Args:
        student: the network.
        sequences: the sequences of this process.
        tree: results tree for the masks.
        advance: called with numbers of finished frames.

    Raises:
        BadVideo: a frame cannot be read.
        BadResults: the tree holds masks of another origin.
    """
    for sequence in sequences:
        names, inputs = sequence.frame_names, inputs_fingerprint(sequence, UNSUP_FG.supervision)
        if tree.is_complete(sequence.name, names, inputs):
            advance(len(names))
            continue
        with tree.writer(sequence.name, names, inputs, source=sequence.video.origin) as writer:
            for part in batched(zip(names, sequence.video, strict=True)):
                masks = np.minimum(student.maps([frame for _, frame in part]) + 0.5, 255).astype(np.uint8)
                for (name, _), mask in zip(part, masks, strict=True):
                    Image.fromarray(mask).save(writer.folder / f"{name}.png", format="PNG", compress_level=1)
                advance(len(part))


def write_consensus(sequence: VideoSequence, teacher: Path, students: Sequence[Path], tree: ResultsTree) -> None:
    """Write the consensus of the frames of a sequence, ``<sequence>/<frame>.png``, unless it is there.

    Args:
        sequence: the sequence.
        teacher: folder with VideoPCA's soft masks.
        students: folders with those of the students.
        tree: results tree for the consensus.
    """
    names, inputs = sequence.frame_names, inputs_fingerprint(sequence, UNSUP_FG.supervision)
    if tree.is_complete(sequence.name, names, inputs):
        return
    with tree.writer(sequence.name, names, inputs, source=sequence.video.origin) as writer:
        for name in names:
            file = f"{sequence.name}/{name}.png"
            mask = consensus(read_soft_mask(teacher / file), [read_soft_mask(root / file) for root in students])
            Image.fromarray(mask).save(writer.folder / f"{name}.png", format="PNG", compress_level=1)
