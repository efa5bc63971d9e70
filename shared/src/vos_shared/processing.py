"""Running a segmenter over sequences into results folders; finished sequences are skipped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from vos_shared.errors import BadResults, BadVideo
from vos_shared.inputs import inputs_fingerprint
from vos_shared.method import Segmenter, Supervision
from vos_shared.sequence_loop import SegmentedFrame, segment_sequence, total_timing
from vos_shared.terminal import escaped

if TYPE_CHECKING:
    import torch

    from vos_shared.datasets import VideoSequence
    from vos_shared.results import ResultsTree


def _all_frames(sequence: VideoSequence) -> Sequence[str]:
    return sequence.frame_names


@dataclass(frozen=True)
class Output:
    """A results folder that a segmenter fills.

    Attributes:
        tree: the results folder.
        write: writes the files of a frame into the folder of its sequence.
        frame_names: names of the frames to write; by default all.
        pictures: whether `write` makes ``<frame>.png`` for each of them, which a finished sequence must have.
        soft_masks: whether `write` needs soft masks.
    """

    tree: ResultsTree
    write: Callable[[Path, SegmentedFrame], object]
    frame_names: Callable[[VideoSequence], Sequence[str]] = _all_frames
    pictures: bool = True
    soft_masks: bool = False

    def required(self, sequence: VideoSequence) -> Sequence[str]:
        """Names of the frames that must have a picture when the sequence is finished."""
        return self.frame_names(sequence) if self.pictures else ()

    def is_finished(self, sequence: VideoSequence, inputs: str) -> bool:
        """Whether the results of a sequence exist and were made from these inputs."""
        return self.tree.is_complete(sequence.name, self.required(sequence), inputs)


def mask_output(tree: ResultsTree, frame_names: Callable[[VideoSequence], Sequence[str]] = _all_frames) -> Output:
    """Output of palette PNGs, ``<sequence>/<frame>.png``, for the frames `frame_names` of a sequence."""
    from vos_shared.masks import write_mask

    def write(folder: Path, item: SegmentedFrame) -> None:
        write_mask(folder / f"{item.name}.png", item.segmentation.mask)

    return Output(tree, write, frame_names)


def soft_mask_output(tree: ResultsTree) -> Output:
    """Output of soft masks, ``<sequence>/<object id>/<frame>.npy``."""
    from vos_shared.soft_masks import write_soft_masks

    def write(folder: Path, item: SegmentedFrame) -> None:
        if item.segmentation.soft_masks is not None:
            write_soft_masks(folder, item.name, item.segmentation.soft_masks)

    return Output(tree, write, pictures=False, soft_masks=True)


def check_outputs(outputs: Sequence[Output], sequences: Iterable[VideoSequence], *, overlay: bool = False) -> None:
    """Check, before any work, that nothing but earlier results is replaced.

    Args:
        outputs: the outputs to write.
        sequences: the sequences to process.
        overlay: whether overlay videos will be written beside the masks of the first output.

    Raises:
        BadResults: names the folder or file that would be replaced.
    """
    from vos_shared.overlay_video import overlay_path, require_overlay
    from vos_shared.results import check_places

    names = [sequence.name for sequence in sequences]
    check_places([output.tree for output in outputs], names)
    for name in names if overlay else ():
        require_overlay(overlay_path(outputs[0].tree.folder(name)))


def process(
    sequences: Sequence[VideoSequence],
    segmenter: Segmenter,
    outputs: Sequence[Output],
    *,
    supervision: Supervision,
    device: torch.device,
    seed: int = 0,
    resume: bool = True,
    fingerprint: Callable[[VideoSequence], str] | None = None,
    failed: Callable[[VideoSequence, BadVideo], object] | None = None,
) -> None:
    """Run a segmenter over the sequences that are not finished in all outputs; shows a progress bar.

    The time of each sequence is stored in the record of the first output, see `times_of`, and beside it the segmenter's
    `decisions`.

    Args:
        sequences: the sequences of this process.
        segmenter: the segmenter.
        outputs: the outputs to write; check them with `check_outputs` first.
        supervision: supervision of the method.
        device: device of the segmenter, for the times.
        seed: seed of the random generators, the same for every sequence.
        resume: skip finished sequences; False computes all anew.
        fingerprint: hash of the inputs of a sequence; by default of its frames and prompts.
        failed: called with each sequence whose frames cannot be read, and with the error; None raises the error.

    Raises:
        UserError: a sequence cannot be processed; those that are finished stay.
    """
    from vos_shared.runtime.device import describe_device

    made_from = fingerprint or (lambda sequence: inputs_fingerprint(sequence, supervision))
    inputs = {sequence.name: made_from(sequence) for sequence in sequences}

    def finished(sequence: VideoSequence) -> bool:
        return resume and all(output.is_finished(sequence, inputs[sequence.name]) for output in outputs)

    def segment(sequence: VideoSequence, advance: Callable[[], object]) -> None:
        with ExitStack() as stack:
            write, keep = _writers(stack, outputs, sequence, inputs[sequence.name])
            timing = segment_sequence(
                segmenter,
                sequence,
                write,
                supervision=supervision,
                device=device,
                seed=seed,
                soft_masks=any(output.soft_masks for output in outputs),
                on_frame=advance,
            )
            keep({"timing": {"device": describe_device(device), **timing.to_json()}})
            if segmenter.decisions:
                keep({"decisions": dict(segmenter.decisions)})

    pending = [sequence for sequence in sequences if not finished(sequence)]
    with tqdm(total=sum(len(item.frame_names) for item in pending), unit="frame", disable=bar_hidden()) as bar:
        for sequence in pending:
            bar.set_description(escaped(sequence.name))
            try:
                segment(sequence, bar.update)
            except BadVideo as reason:
                if failed is None:
                    raise
                failed(sequence, reason)


_Write = Callable[[SegmentedFrame], None]
_Keep = Callable[[Mapping[str, Any]], None]


def _writers(stack: ExitStack, outputs: Sequence[Output], sequence: VideoSequence, inputs: str) -> tuple[_Write, _Keep]:
    """A function that writes a frame to all outputs, and one that adds to the record of the first."""
    origin = sequence.video.origin
    writers = [
        stack.enter_context(output.tree.writer(sequence.name, output.required(sequence), inputs, source=origin))
        for output in outputs
    ]
    for writer in writers:
        if sequence.video.damage:
            writer.extra({"damage": sequence.video.damage})
    targets = [
        (frozenset(output.frame_names(sequence)), output.write, writer.folder)
        for output, writer in zip(outputs, writers, strict=True)
    ]

    def write(item: SegmentedFrame) -> None:
        for names, write_frame, folder in targets:
            if item.name in names:
                write_frame(folder, item)

    return write, writers[0].extra


def draw(sequences: Sequence[VideoSequence], tree: ResultsTree) -> None:
    """Write an overlay video ``<sequence>.mp4`` beside the masks, unless there is one newer than the masks."""
    from vos_shared.overlay_video import overlay_path, write_overlay

    for sequence in tqdm(sequences, desc="drawing", unit="sequence", disable=bar_hidden()):
        masks = tree.folder(sequence.name)
        path = overlay_path(masks)
        if not path.exists() or path.stat().st_mtime < masks.stat().st_mtime:
            write_overlay(sequence.video, masks, path)


def times_of(sequences: Sequence[VideoSequence], tree: ResultsTree) -> dict[str, dict[str, Any]]:
    """Times of each sequence, from this run or an earlier one; see `vos_shared.sequence_loop.SequenceTiming.to_json`.

    Raises:
        BadResults: a record is missing or damaged, since another run writes to the folder at the same time.
    """
    records = {sequence.name: tree.record(sequence.name) or {} for sequence in sequences}
    times = {name: record.get("extra", {}).get("timing") for name, record in records.items()}
    if lacking := [name for name, timing in times.items() if not isinstance(timing, dict) or "frames" not in timing]:
        raise BadResults(f"{tree.root} has no times of {lacking[0]}: another run may be writing there; run this again")
    return {name: timing for name, timing in times.items() if timing is not None}


def write_timing(sequences: Sequence[VideoSequence], tree: ResultsTree, path: Path) -> None:
    """Write the times of the sequences as JSON; under torchrun, each process with sequences writes a file.

    Raises:
        BadResults: as `times_of`.
    """
    from vos_shared.atomic import write_json
    from vos_shared.runtime.distributed import own_file

    if sequences:
        times = times_of(sequences, tree)
        write_json(own_file(path), {**tree.settings, "total": total_timing(times.values()), "sequences": times})


def bar_hidden() -> bool | None:
    """Value for ``tqdm(disable=..)``: only the first process shows a bar, and only in a terminal."""
    from vos_shared.runtime.distributed import rank

    return None if rank() == 0 else True
