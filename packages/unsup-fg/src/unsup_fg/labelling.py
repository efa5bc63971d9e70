"""Masks of many videos on disk: what students learn from, and what can be scored."""

from __future__ import annotations

from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from PIL import Image

from unsup_fg.inference import SegmenterSettings, VideoPCASegmenter
from unsup_fg.method import VIDEOPCA
from unsup_fg.videopca import VideoPCASettings
from vos_shared.errors import UserError
from vos_shared.processing import Output, mask_output
from vos_shared.provenance import package_digest
from vos_shared.results import SOFT_MASKS, ResultsTree
from vos_shared.sequence_loop import SegmentedFrame


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
