"""The ``segment`` command behind every method's command line."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from vos_shared.atomic import require_json
from vos_shared.errors import BadResults, UserError
from vos_shared.inputs import InputArguments, inputs_fingerprint, require_prompts
from vos_shared.method import ENTRY_POINT_GROUP, Method, Segmenter, Supervision
from vos_shared.sequence_loop import MaskSink, SequenceTiming, segment_sequence, total_timing

if TYPE_CHECKING:
    import torch

    from vos_shared.datasets import VideoSequence
    from vos_shared.results import ResultsTree

__all__ = [
    "MaskSink",
    "SegmentArguments",
    "SequenceTiming",
    "run_segment",
    "run_settings",
    "segment_sequence",
]


@dataclass(frozen=True, kw_only=True)
class SegmentArguments(InputArguments):
    """Segment videos: a palette PNG for each frame, in OUTPUT/<sequence>/."""

    output: Path
    """Folder for the masks. Sequences that are finished there, with the same input and settings, are not redone."""
    prompt: Path | None = None
    """Of a video: palette PNG with the objects of its first frame, or a folder of masks named like frames."""
    weights: str | None = None
    """A file, or a name in the table of published weights; by default the method's own choice."""
    variant: str | None = None
    """Named variant of the method; by default the plain one."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps. Under torchrun each process takes its GPU and its share of the sequences."""
    precision: str = "fp32"
    """fp32, bf16 or fp16."""
    seed: int = 0
    """Of random numbers, the same for every sequence."""
    resume: bool = True
    """Skip sequences that are finished; --no-resume computes all anew."""
    overlay: bool = False
    """Also write OUTPUT/<sequence>.mp4, the objects drawn over the frames."""
    soft_masks: Path | None = None
    """Also write soft masks: FOLDER/<sequence>/<id>/<frame>.npy, float32 [H, W] in 0..1."""
    timing: Path | None = None
    """Write a JSON file: frames a second, milliseconds a frame, decode / model / encode time, peak memory."""


def run_segment(method: Method, arguments: SegmentArguments, **options: Any) -> None:
    """The ``segment`` command.

    Args:
        method: what to run.
        arguments: the command line; a method with options of its own subclasses it.
        options: of the method, for `Method.load`.

    Raises:
        UserError: with whatever is wrong, before or at the sequence it concerns; finished sequences stay.

    """
    from vos_shared.results import SOFT_MASKS, ResultsTree
    from vos_shared.runtime.device import choose_device
    from vos_shared.runtime.distributed import shard

    require_json(arguments.timing)
    if not 0 <= arguments.seed < 2**64:
        raise UserError(f"--seed is {arguments.seed}; it must be from 0 to {2**64 - 1}")
    if arguments.prompt is not None and method.supervision is Supervision.NONE:
        raise UserError(f"{method.name} finds the foreground by itself and takes no mask; leave out --prompt")
    sequences = shard(arguments.load(arguments.prompt))
    require_prompts(sequences, method.supervision)
    device = choose_device(arguments.device)
    segmenter = method.load(arguments.weights, str(device), arguments.precision, variant=arguments.variant, **options)
    settings = run_settings(method, segmenter, arguments, options)
    tree = ResultsTree(arguments.output, settings=settings)
    soft_masks = (
        None if arguments.soft_masks is None else ResultsTree(arguments.soft_masks, settings=settings, kind=SOFT_MASKS)
    )
    run = _Run(tree, soft_masks, method, segmenter, arguments, device)
    run.check_places(sequences)
    run.compute(sequences)
    if arguments.overlay:
        run.draw(sequences)
    if arguments.timing is not None and sequences:  # With more processes than sequences some have none.
        run.write_timing(sequences, arguments.timing)
    print(f"{len(sequences)} {'sequence' if len(sequences) == 1 else 'sequences'} in {arguments.output}")


def run_settings(
    method: Method, segmenter: Segmenter, arguments: SegmentArguments, options: Mapping[str, Any]
) -> dict[str, Any]:
    """What masks depend on beside the input, as JSON values; the device is not among it."""
    from vos_shared.provenance import package_digest, weights_digest

    return {
        "method": arguments.variant or method.name,
        "version": _version(method),
        "weights": segmenter.info.weights,
        "weights_digest": weights_digest(arguments.weights),
        "package_digest": package_digest(method),
        "precision": arguments.precision,
        "seed": arguments.seed,
        "options": json.loads(json.dumps(options, default=str)),
    }


def _version(method: Method) -> str | None:
    """Version of the distribution that registered the method."""
    entries = entry_points(group=ENTRY_POINT_GROUP, name=method.name)
    return next((entry.dist.version for entry in entries if entry.dist), None)


@dataclass(frozen=True)
class _Run:
    tree: ResultsTree
    soft_masks: ResultsTree | None
    method: Method
    segmenter: Segmenter
    arguments: SegmentArguments
    device: torch.device

    def check_places(self, sequences: list[VideoSequence]) -> None:
        """Refuse, before any work, to replace what somebody else has written."""
        from vos_shared.overlay_video import overlay_path, require_overlay
        from vos_shared.results import check_places

        trees = [self.tree] if self.soft_masks is None else [self.tree, self.soft_masks]
        check_places(trees, (sequence.name for sequence in sequences))
        for sequence in sequences if self.arguments.overlay else ():
            require_overlay(overlay_path(self.tree.folder(sequence.name)))

    def compute(self, sequences: list[VideoSequence]) -> None:
        """Segment the sequences that are not finished."""
        inputs = {sequence.name: inputs_fingerprint(sequence, self.method.supervision) for sequence in sequences}
        pending = [sequence for sequence in sequences if not self._is_finished(sequence, inputs[sequence.name])]
        frames = sum(len(sequence.frame_names) for sequence in pending)
        with tqdm(total=frames, unit="frame", disable=_hidden()) as bar:
            for sequence in pending:
                bar.set_description(sequence.name)
                self._segment(sequence, inputs[sequence.name], bar.update)

    def _is_finished(self, sequence: VideoSequence, inputs: str) -> bool:
        complete = self.tree.is_complete(sequence.name, sequence.frame_names, inputs)
        scored = self.soft_masks is None or self.soft_masks.is_finished(sequence.name, inputs)
        return self.arguments.resume and complete and scored

    def _segment(self, sequence: VideoSequence, inputs: str, on_frame: Callable[[], object]) -> None:
        from vos_shared.runtime.device import describe_device
        from vos_shared.soft_masks import soft_mask_writer

        with (
            soft_mask_writer(self.soft_masks, sequence.name, inputs) as soft_masks,
            self.tree.writer(sequence.name, sequence.frame_names, inputs, source=sequence.video.source_path) as writer,
        ):
            timing = segment_sequence(
                self.segmenter,
                sequence,
                writer,
                supervision=self.method.supervision,
                device=self.device,
                seed=self.arguments.seed,
                soft_masks=soft_masks,
                on_frame=on_frame,
            )
            writer.extra({"timing": {"device": describe_device(self.device), **timing.to_json()}})

    def draw(self, sequences: list[VideoSequence]) -> None:
        """Draw the objects over the frames, unless a film is there that is younger than its masks."""
        from vos_shared.overlay_video import overlay_path, write_overlay

        for sequence in tqdm(sequences, desc="drawing", unit="sequence", disable=_hidden()):
            masks = self.tree.folder(sequence.name)
            film = overlay_path(masks)
            if not film.exists() or film.stat().st_mtime < masks.stat().st_mtime:
                write_overlay(sequence.video, masks, film)

    def write_timing(self, sequences: list[VideoSequence], path: Path) -> None:
        """Write the times of this run and of those before it; under torchrun a file for each process."""
        from vos_shared.atomic import write_json
        from vos_shared.runtime.distributed import own_file

        records = {sequence.name: self.tree.record(sequence.name) for sequence in sequences}
        times = {name: record["extra"]["timing"] for name, record in records.items() if record is not None}
        if len(times) < len(records):
            raise BadResults(f"another run is writing to {self.tree.root}; for the times run this again")
        write_json(own_file(path), {**self.tree.settings, "total": total_timing(times.values()), "sequences": times})


def _hidden() -> bool | None:
    """For tqdm: only the first process shows a bar, and only in a terminal."""
    from vos_shared.runtime.distributed import rank

    return None if rank() == 0 else True
