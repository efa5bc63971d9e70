"""Inference over a list of frames with flags, into the folders of the official program."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from dense_ulearn.method import DENSE_ULEARN
from vos_shared.datasets.frame_lists import ListedSequence, read_inference_list
from vos_shared.errors import UserError
from vos_shared.inputs import inputs_fingerprint, require_prompts
from vos_shared.masks import DAVIS_PALETTE
from vos_shared.method import Frame, ObjectMask, Segmenter
from vos_shared.results import ResultsTree, check_places, fingerprint
from vos_shared.runtime.device import choose_device
from vos_shared.runtime.distributed import rank, shard
from vos_shared.segment import SegmentArguments, run_settings
from vos_shared.sequence_loop import MaskSink, segment_sequence

PASCAL_COLOURS: Final = 22
"""Ids that have a colour of their own in the official pictures; those above are grey."""


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
        layer: whose name the output folders get.
        options: of the method.
        pictures: also write pictures.

    Raises:
        UserError: the list, a frame, a mask or the weights cannot be used; finished sequences stay.
    """
    everything = read_inference_list(path, arguments.source)
    if not any(item.sequence.annotations for item in everything):
        raise UserError(f"file list {path}: no mask that it names is there; sequences begin with the masks of objects")
    listed = shard(everything)
    prompted = [item.sequence for item in listed if item.sequence.annotations]  # Others are background, as published.
    require_prompts(prompted, DENSE_ULEARN.supervision)
    device = choose_device(arguments.device)
    weights, precision = arguments.weights, arguments.precision
    segmenter = DENSE_ULEARN.load(weights, str(device), precision, variant=arguments.variant, **options)
    settings = {**run_settings(DENSE_ULEARN, segmenter, arguments, options), "pictures": pictures}
    tree = ResultsTree(arguments.output / f"{layer}_vos", settings=settings)
    drawn = ResultsTree(arguments.output / f"{layer}_vis", settings=settings, kind="pictures") if pictures else None
    check_places([tree] if drawn is None else [tree, drawn], (item.sequence.name for item in listed))
    total = sum(len(item.sequence.frame_names) for item in listed)
    with tqdm(total=total, unit="frame", disable=None if rank() == 0 else True) as bar:
        for item in listed:
            bar.set_description(item.sequence.name)
            inputs = fingerprint([inputs_fingerprint(item.sequence, DENSE_ULEARN.supervision), sorted(item.wanted)])
            if arguments.resume and _is_done(item, tree, inputs, drawn):
                bar.update(len(item.sequence.frame_names))
            else:
                _segment(item, tree, inputs, drawn, segmenter, device, arguments.seed, bar.update)
    print(f"{len(listed)} {'sequence' if len(listed) == 1 else 'sequences'} in {tree.root}")


def _is_done(item: ListedSequence, tree: ResultsTree, inputs: str, drawn: ResultsTree | None) -> bool:
    name = item.sequence.name
    if drawn is not None and not drawn.is_complete(name, item.sequence.frame_names, inputs):
        return False
    return tree.is_complete(name, sorted(item.wanted), inputs)


def _segment(
    item: ListedSequence,
    tree: ResultsTree,
    inputs: str,
    drawn: ResultsTree | None,
    segmenter: Segmenter,
    device: torch.device,
    seed: int,
    on_frame: Callable[[], object],
) -> None:
    name = item.sequence.name
    with (
        nullcontext() if drawn is None else drawn.replacing(name, inputs) as folder,
        tree.writer(name, sorted(item.wanted), inputs) as writer,
    ):
        pictures = None if folder is None else _Pictures(folder, iter(item.sequence.video))
        timing = segment_sequence(
            segmenter,
            item.sequence,
            _Outputs(writer, item.wanted, pictures),
            supervision=DENSE_ULEARN.supervision,
            device=device,
            seed=seed,
            on_frame=on_frame,
        )
        writer.extra({"timing": timing.to_json()})


@dataclass(frozen=True)
class _Outputs:
    """Masks of flagged frames, pictures of all."""

    masks: MaskSink
    wanted: frozenset[str]
    pictures: _Pictures | None

    def write(self, frame_name: str, mask: ObjectMask, /) -> None:
        if frame_name in self.wanted:
            self.masks.write(frame_name, mask)
        if self.pictures is not None:
            self.pictures.write(frame_name, mask)


@dataclass(frozen=True)
class _Pictures:
    folder: Path
    frames: Iterator[Frame]  # Decoded once more: here they are needed later than in the segmenter.

    def write(self, frame_name: str, mask: ObjectMask, /) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(next(self.frames), mask)).save(self.folder / f"{frame_name}.png")


def picture(frame: Frame, mask: ObjectMask) -> Frame:
    """Labels over a frame as the official program draws them: 0.3 of the frame, 0.7 of the label's colour."""
    colours = np.arange(256, dtype=np.uint8)[:, None].repeat(3, axis=1)
    colours[:PASCAL_COLOURS] = np.where(DAVIS_PALETTE == 192, 191, DAVIS_PALETTE)[:PASCAL_COLOURS]
    drawn: Frame = (0.3 * frame + 0.7 * colours[mask]).astype(np.uint8)
    return drawn
