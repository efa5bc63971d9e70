"""The input: a data set, a video, or the built-in clips; it is read completely before the first method starts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from comparison.options import Options
from comparison.records import FOREGROUND, OBJECTS, Protocol
from vos_shared.datasets import VideoSequence, load_dataset
from vos_shared.datasets.davis import split_lists
from vos_shared.datasets.synthetic import write_new_davis_tree
from vos_shared.errors import BadDataset, UserError
from vos_shared.inputs import InputArguments
from vos_shared.results import ResultsTree
from vos_shared.tables import listed

FEWEST_MASKS = 3
"""Masks that a scored sequence needs: DAVIS scores every annotated frame but the first and the last."""
CLIPS, CLIP_FRAMES, CLIP_SIZE = 3, 24, (240, 432)
"""Number, length, height and width of the built-in clips."""


@dataclass(frozen=True)
class Inputs:
    """The input of a comparison.

    Attributes:
        title: description for the report.
        sequences: videos with their masks.
        protocols: how masks are scored; empty without true masks.
        unscored: why there are no protocols; empty if there are.
    """

    title: str
    sequences: tuple[VideoSequence, ...]
    protocols: tuple[Protocol, ...]
    unscored: str = ""


def open_inputs(options: Options) -> Inputs:
    """Find what the options ask for.

    Raises:
        UserError: the input is missing or incomplete.
    """
    if options.video is not None:
        inputs = _open_video(options.video, options.prompt, accept_damaged=options.accept_damaged)
        ResultsTree(options.output).folder(inputs.sequences[0].name)  # Refuses names that leave the output folder.
        return inputs
    if options.dataset is not None and options.root is not None:
        only = options.sequences or None
        sequences = load_dataset(
            options.dataset, options.root, options.split, only, options.resolution, masks_required=False
        )
        split = options.split or ("val" if split_lists(options.root) else "all sequences")
        return _with_protocols(options.dataset.removeprefix("davis"), split, tuple(sequences))
    return _open_demo(options.output / "demo")


def _with_protocols(year: str, split: str, sequences: tuple[VideoSequence, ...]) -> Inputs:
    """Load a split of DAVIS; a split with masks of prompts only, such as test-dev, is not scored.

    Raises:
        BadDataset: some of the sequences can be scored, and some cannot.
    """
    title = f"DAVIS {year}, {split}"
    short = [sequence.name for sequence in sequences if len(sequence.annotations) < FEWEST_MASKS]
    if len(short) == len(sequences):
        return Inputs(title, sequences, (), f"no sequence of {split} has masks of {FEWEST_MASKS} frames or more")
    if short:
        raise BadDataset(
            f"{split} cannot be scored: masks of at least {FEWEST_MASKS} frames are needed, and these sequences have"
            f" fewer: {listed(short)}; add their masks, or choose other sequences with --sequences"
        )
    return Inputs(title, sequences, (FOREGROUND,) if year == "2016" else (OBJECTS, FOREGROUND))


def _open_video(path: Path, prompt: Path | None, *, accept_damaged: bool) -> Inputs:
    arguments = InputArguments(source=str(path), accept_damaged=accept_damaged)
    if arguments.is_dataset:
        raise BadDataset(f"{path} is a data set; give it as --dataset davis2017 --root {path}")
    (sequence,) = arguments.load(prompt)
    damage = f" (damaged: {sequence.video.damage})" if sequence.video.damage else ""
    return Inputs(f"Video {sequence.name}{damage}", (sequence,), (), "a video has no true masks")


def _open_demo(root: Path) -> Inputs:
    """The built-in clips, always the same; written once to a folder of the output.

    Raises:
        BadDataset: the folder holds other clips.
    """
    if not root.exists():
        _write_demo(root)
    sequences = tuple(load_dataset("davis2017", root))
    if [(len(sequence.video), sequence.video.size) for sequence in sequences] != [(CLIP_FRAMES, CLIP_SIZE)] * CLIPS:
        raise BadDataset(f"{root} holds other clips than the built-in ones; remove it, or choose another --output")
    return Inputs("Built-in synthetic clips", sequences, (OBJECTS, FOREGROUND))


def _write_demo(root: Path) -> None:
    try:
        write_new_davis_tree(root, clips=CLIPS, frames=CLIP_FRAMES, size=CLIP_SIZE)
    except UserError:  # Another run may have written them in the meantime.
        if not root.exists():
            raise


def fingerprints(inputs: Inputs) -> dict[str, str]:
    """Read all frames and masks once and hash the input of each sequence.

    So broken files are found before the first method starts.

    Returns:
        Hex digest of the decoded frames and of the prompts, by sequence.

    Raises:
        UserError: a frame or mask that cannot be read, a mask of another size, masks without any object.
    """
    digests = {}
    with tqdm(inputs.sequences, "checking input", unit="sequence", disable=None, leave=False) as bar:
        for sequence in bar:
            digests[sequence.name] = _fingerprint(sequence)
    return digests


def _fingerprint(sequence: VideoSequence) -> str:
    digest = hashlib.sha256()
    prompts = [(name, prompt) for name, prompt in sequence.prompts() if prompt is not None]
    if sequence.annotations and not prompts:
        raise BadDataset(f"sequence {sequence.name}: its masks hold no object; there is nothing to segment")
    for name, prompt in prompts:
        digest.update(name.encode())
        digest.update(prompt.tobytes())
    for frame in sequence.video:
        digest.update(str(frame.shape).encode())
        digest.update(frame.tobytes())
    return digest.hexdigest()


def required_masks(inputs: Inputs) -> dict[str, tuple[str, ...]]:
    """Names of the frames that other masks must cover, by sequence: the scored ones, or all if none is scored."""
    if not inputs.protocols:
        return {sequence.name: tuple(sequence.frame_names) for sequence in inputs.sequences}
    return {sequence.name: tuple(sequence.annotations)[1:-1] for sequence in inputs.sequences}
