"""Objects that were segmented one by one become one mask a frame (specification, section 11)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from vos_shared.datasets import VideoSequence
from vos_shared.errors import BadResults
from vos_shared.masks import VOID, describe_size
from vos_shared.method import ObjectMask
from vos_shared.results import ResultsTree
from vos_shared.soft_masks import SoftMask, objects_with_soft_masks, read_soft_mask

THRESHOLD = np.float32(0.5)
"""Of the background, which all objects compete with."""


def merge_soft_masks(probabilities: Mapping[int, SoftMask], size: tuple[int, int]) -> ObjectMask:
    """Argmax over 0.5 for the background and every object's probability; ties go to the lower id, background first.

    Args:
        probabilities: id -> float32 [H, W] in 0..1.
        size: (height, width) of all of them.

    Returns:
        Ids, uint8 [H, W].
    """
    mask = np.zeros(size, np.uint8)
    best = np.full(size, THRESHOLD)
    for key in sorted(probabilities):
        wins = probabilities[key] > best
        mask[wins] = key
        best = np.maximum(best, probabilities[key])
    return mask


def merge_sequence(scores: Path, sequence: VideoSequence, tree: ResultsTree) -> None:
    """Merge the soft masks of one sequence and write its masks at the frames' size.

    In the frame where an object is given its true mask stands; without soft mask in another frame it is not there.

    Args:
        scores: folder of the sequence, with <id>/<frame>.npy; ids are the folders' names.
        sequence: gives frame names, frame size and true masks.
        tree: takes the masks.

    Raises:
        BadResults: no soft masks, of different sizes in one frame, of what is no object, or not in 0..1.
    """
    ids = objects_with_soft_masks(scores)
    if unfit := [str(key) for key in ids if not 0 < key < VOID]:
        raise BadResults(f"{scores} has soft masks of {', '.join(unfit)}; ids of objects are 1 to {VOID - 1}")
    with tree.writer(sequence.name, sequence.frame_names) as writer:
        for frame_name, prompt in sequence.prompts():
            given = set() if prompt is None else set(np.unique(prompt).tolist())
            scored = {key: _probability(scores, key, frame_name) for key in ids if key not in given}
            found = {key: score for key, score in scored.items() if score is not None}
            size = _common_size(found, scores, frame_name) or sequence.video.size
            mask = _resize_ids(merge_soft_masks(found, size), sequence.video.size)
            # Prompted pixels win over propagated ones.
            writer.write(frame_name, mask if prompt is None else np.where(prompt > 0, prompt, mask))


def _probability(folder: Path, key: int, frame_name: str) -> SoftMask | None:
    score = read_soft_mask(folder, key, frame_name)
    if score is not None and not ((score >= 0) & (score <= 1)).all():
        raise BadResults(f"soft mask {folder / str(key) / frame_name}.npy has values that are not in 0..1")
    return score


def _common_size(found: Mapping[int, SoftMask], folder: Path, frame_name: str) -> tuple[int, int] | None:
    sizes = {score.shape for score in found.values()}
    if len(sizes) > 1:
        listed = ", ".join(sorted(map(describe_size, sizes)))
        raise BadResults(f"{folder}: the soft masks of frame {frame_name} are {listed}; all must be of one size")
    for height, width in sizes:
        return height, width
    return None


def _resize_ids(mask: ObjectMask, size: tuple[int, int]) -> ObjectMask:
    if mask.shape == size:
        return mask
    return np.asarray(Image.fromarray(mask).resize(size[::-1], Image.Resampling.NEAREST))
