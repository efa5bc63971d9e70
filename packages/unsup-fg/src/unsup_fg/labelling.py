"""Masks of many videos on disk: what students learn from, and what can be scored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from unsup_fg.inference import SegmenterSettings, VideoPCASegmenter
from unsup_fg.method import UNSUP_FG, VIDEOPCA
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
    """Progress that nobody looks at."""


def label_outputs(segmenter: VideoPCASegmenter, *, masks: Path | None, soft: Path | None) -> list[Output]:
    """What VideoPCA writes.

    Args:
        segmenter: that will run.
        masks: folder for object masks, palette PNGs of the frames' size, or None.
        soft: folder for soft masks, grey PNGs of the working size, or None.

    Raises:
        UserError: neither folder.
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
    """Soft masks as students learn from them: ``<sequence>/<frame>.png``, grey, of the working size."""

    def write(folder: Path, item: SegmentedFrame) -> None:
        soft_mask = segmenter.soft_masks[item.index]
        Image.fromarray(soft_mask).save(folder / f"{item.name}.png", format="PNG", compress_level=1)

    return Output(tree, write)


def _made_with(settings: SegmenterSettings, kind: type[VideoPCASettings]) -> dict[str, Any]:
    """What masks depend on beside the video."""
    values = {field.name: getattr(settings, field.name) for field in fields(kind)}
    return {
        "method": "videopca",
        "version": version("unsup-fg"),
        "package_digest": package_digest(VIDEOPCA),
        **values,
    }


def student_tree(folder: Path, weights: str | None, precision: str) -> ResultsTree:
    """Where the soft masks of a student go.

    Args:
        folder: of the tree.
        weights: as the user gave them.
        precision: of the network.
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

    They are what EvalSeg-Net judges and what the next generation learns from. Finished sequences stay.

    Args:
        student: the network.
        sequences: the share of this process.
        tree: where the masks go.
        advance: called with numbers of finished frames.

    Raises:
        BadVideo: a frame cannot be read.
        BadResults: the masks there are of somebody else.
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
