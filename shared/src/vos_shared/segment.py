"""The ``segment`` command of every method."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vos_shared.atomic import require_json
from vos_shared.errors import UserError
from vos_shared.inputs import InputArguments, require_prompts
from vos_shared.method import ENTRY_POINT_GROUP, Method, Segmenter, Supervision
from vos_shared.terminal import escaped

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class SegmentArguments(InputArguments):
    """Segment videos: write a palette PNG for each frame to OUTPUT/<sequence>/."""

    output: Path
    """Folder for the masks. Sequences that are finished there with the same input and settings are skipped."""
    prompt: Path | None = None
    """For a video: palette PNG with the objects of its first frame, or a folder of masks named like the frames."""
    weights: str | None = None
    """A file, or a name in the table of weights; by default the method chooses."""
    variant: str | None = None
    """Variant of the method, by name; by default the plain one."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps. Under torchrun each process takes its GPU and its share of the sequences."""
    precision: str = "fp32"
    """fp32, bf16 or fp16."""
    seed: int = 0
    """Seed of the random generators, the same for every sequence."""
    resume: bool = True
    """Skip finished sequences; --no-resume computes all again."""
    overlay: bool = False
    """Also write OUTPUT/<sequence>.mp4 with the objects drawn over the frames."""
    soft_masks: Path | None = None
    """Also write soft masks: FOLDER/<sequence>/<id>/<frame>.npy, float32 [H, W] in 0..1."""
    timing: Path | None = None
    """Write a JSON file: frames a second, milliseconds a frame, time to decode, segment and encode, peak memory."""


def run_segment(method: Method, arguments: SegmentArguments, **options: Any) -> None:
    """Run the ``segment`` command.

    Args:
        method: the method.
        arguments: the command line; a method with further options subclasses it.
        options: options of the method, for `Method.load`.

    Raises:
        UserError: input or options are invalid; finished sequences stay.
    """
    from vos_shared.processing import check_outputs, draw, mask_output, process, soft_mask_output, write_timing
    from vos_shared.results import SOFT_MASKS, ResultsTree
    from vos_shared.runtime.distributed import shard

    require_json(arguments.timing)
    if not 0 <= arguments.seed < 2**64:
        raise UserError(f"--seed is {arguments.seed}; it must be from 0 to {2**64 - 1}")
    if arguments.prompt is not None and method.supervision is Supervision.NONE:
        raise UserError(f"{method.name} finds the foreground by itself and takes no mask; leave out --prompt")
    sequences = shard(arguments.load(arguments.prompt, masks_required=method.supervision is not Supervision.NONE))
    require_prompts(sequences, method.supervision)
    segmenter, device = load_segmenter(method, arguments, options)
    settings = run_settings(method, segmenter, arguments, options)
    outputs = [mask_output(ResultsTree(arguments.output, settings=settings))]
    if arguments.soft_masks is not None:
        outputs.append(soft_mask_output(ResultsTree(arguments.soft_masks, settings=settings, kind=SOFT_MASKS)))
    check_outputs(outputs, sequences, overlay=arguments.overlay)
    process(
        sequences,
        segmenter,
        outputs,
        supervision=method.supervision,
        device=device,
        seed=arguments.seed,
        resume=arguments.resume,
    )
    if arguments.overlay:
        draw(sequences, outputs[0].tree)
    if arguments.timing is not None:
        write_timing(sequences, outputs[0].tree, arguments.timing)
    print(f"{len(sequences)} {'sequence' if len(sequences) == 1 else 'sequences'} in {escaped(str(arguments.output))}")


def load_segmenter(
    method: Method, arguments: SegmentArguments, options: Mapping[str, Any]
) -> tuple[Segmenter, torch.device]:
    """The segmenter that the command line asks for, and its device.

    Raises:
        UserError: weights, device, precision, variant or an option cannot be used.
    """
    from vos_shared.runtime.device import choose_device

    device = choose_device(arguments.device)
    loaded = method.load(arguments.weights, str(device), arguments.precision, variant=arguments.variant, **options)
    return loaded, device


def run_settings(
    method: Method, segmenter: Segmenter, arguments: SegmentArguments, options: Mapping[str, Any]
) -> dict[str, Any]:
    """What masks depend on besides the input, as JSON values; the device is left out."""
    import av

    from vos_shared.provenance import package_digest, weights_digest

    return {
        "method": arguments.variant or method.name,
        "version": _version(method),
        "weights": segmenter.info.weights,
        "weights_digest": weights_digest(arguments.weights),
        "package_digest": package_digest(method),
        # Decoded pixels depend on the version.
        "decoder": f"PyAV {av.__version__}, FFmpeg {av.ffmpeg_version_info}",
        "precision": arguments.precision,
        "seed": arguments.seed,
        "options": json.loads(json.dumps(options, default=str)),
    }


def _version(method: Method) -> str | None:
    """Version of the distribution that registers the method."""
    entries = entry_points(group=ENTRY_POINT_GROUP, name=method.name)
    return next((entry.dist.version for entry in entries if entry.dist), None)
