"""Inference over a list of frames with flags, into the folders of the official program."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from dense_ulearn.method import DENSE_ULEARN
from vos_shared.datasets.frame_lists import read_inference_list
from vos_shared.errors import UserError
from vos_shared.inputs import inputs_fingerprint, require_prompts
from vos_shared.masks import DAVIS_PALETTE
from vos_shared.method import Frame, ObjectMask
from vos_shared.processing import Output, check_outputs, mask_output, process
from vos_shared.results import ResultsTree, fingerprint
from vos_shared.runtime.distributed import shard
from vos_shared.segment import SegmentArguments, load_segmenter, run_settings
from vos_shared.sequence_loop import SegmentedFrame

PASCAL_COLOURS: Final = 22
"""Number of ids with a colour of their own in the official pictures; higher ids are grey."""


def segment_list(
    path: Path, arguments: SegmentArguments, layer: str, options: Mapping[str, Any], *, pictures: bool = False
) -> None:
    """Segment the sequences of an inference list.

    Masks go to OUTPUT/<layer>_vos/<sequence>/<frame>.png, for flagged frames only; pictures to
    OUTPUT/<layer>_vis/<sequence>/<frame>.png, for all frames. The masks have a palette, unlike those of the official
    program; the ids are the same.

    Args:
        path: the list, see `read_inference_list`.
        arguments: of the command line; the source is the folder that the paths in the list are relative to.
        layer: part of the names of the output folders.
        options: of the method.
        pictures: also write pictures.

    Raises:
        UserError: the list, a frame, a mask or the weights cannot be used; finished sequences stay.
    """
    everything = read_inference_list(path, arguments.source)
    if not any(item.sequence.annotations for item in everything):
        raise UserError(f"file list {path}: none of its masks exists; a sequence begins with the masks of its objects")
    listed = shard(everything)
    sequences = [item.sequence for item in listed]
    supervision = DENSE_ULEARN.supervision
    # A sequence without masks is all background, as in the published program.
    require_prompts([sequence for sequence in sequences if sequence.annotations], supervision)
    segmenter, device = load_segmenter(DENSE_ULEARN, arguments, options)
    settings = {**run_settings(DENSE_ULEARN, segmenter, arguments, options), "pictures": pictures}
    wanted = {item.sequence.name: sorted(item.wanted) for item in listed}
    masks = ResultsTree(arguments.output / f"{layer}_vos", settings=settings)
    outputs = [mask_output(masks, frame_names=lambda item: wanted[item.name])]
    if pictures:
        tree = ResultsTree(arguments.output / f"{layer}_vis", settings=settings, kind="pictures")
        outputs.append(Output(tree, _write_picture))
    check_outputs(outputs, sequences)
    process(
        sequences,
        segmenter,
        outputs,
        supervision=supervision,
        device=device,
        seed=arguments.seed,
        resume=arguments.resume,
        fingerprint=lambda item: fingerprint([inputs_fingerprint(item, supervision), wanted[item.name]]),
    )
    print(f"{len(listed)} {'sequence' if len(listed) == 1 else 'sequences'} in {masks.root}")


def _write_picture(folder: Path, item: SegmentedFrame) -> None:
    Image.fromarray(picture(item.frame, item.segmentation.mask)).save(folder / f"{item.name}.png")


def picture(frame: Frame, mask: ObjectMask) -> Frame:
    """Labels over a frame as the official program draws them: 0.3 of the frame, 0.7 of the label's colour."""
    colours = np.arange(256, dtype=np.uint8)[:, None].repeat(3, axis=1)
    colours[:PASCAL_COLOURS] = np.where(DAVIS_PALETTE == 192, 191, DAVIS_PALETTE)[:PASCAL_COLOURS]
    drawn: Frame = (0.3 * frame + 0.7 * colours[mask]).astype(np.uint8)
    return drawn
