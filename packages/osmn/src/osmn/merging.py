"""Merging of soft masks into one mask per frame (specification, section 11)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vos_shared.datasets import VideoSequence
from vos_shared.errors import BadResults
from vos_shared.masks import VOID, describe_size
from vos_shared.method import ObjectMask
from vos_shared.results import ResultsTree
from vos_shared.soft_masks import SoftMask, objects_with_soft_masks, read_soft_mask

THRESHOLD = 0.5
"""Soft mask of the background, with which all objects compete."""


def merge_soft_masks(soft_masks: Tensor, object_ids: list[int]) -> Tensor:
    """Argmax over the objects and 0.5 for the background; on a tie the lower id wins, background first.

    Args:
        soft_masks: float32 [K, H, W] in 0..1.
        object_ids: ids of the K rows.

    Returns:
        Ids, uint8 [H, W].
    """
    ids = torch.zeros(soft_masks.shape[1:], dtype=torch.uint8, device=soft_masks.device)
    best = torch.full(soft_masks.shape[1:], THRESHOLD, device=soft_masks.device)
    for row in sorted(range(len(object_ids)), key=object_ids.__getitem__):
        ids = torch.where(soft_masks[row] > best, object_ids[row], ids)
        best = torch.maximum(best, soft_masks[row])
    return ids


def merge_sequence(soft_masks: Path, sequence: VideoSequence, tree: ResultsTree) -> None:
    """Merge the soft masks of one sequence and write its masks at the frames' size.

    A frame that prompts an object keeps its prompt. In any other frame an object without a soft mask is absent.

    Args:
        soft_masks: folder of the sequence, with <id>/<frame>.npy; ids are the folders' names.
        sequence: gives frame names, frame size and true masks.
        tree: takes the masks.

    Raises:
        BadResults: no soft masks; different sizes in one frame; a folder that is not an object id; values not in 0..1.
    """
    ids = objects_with_soft_masks(soft_masks)
    if unfit := [str(object_id) for object_id in ids if not 0 < object_id < VOID]:
        raise BadResults(f"{soft_masks} has soft masks of {', '.join(unfit)}; ids of objects are 1 to {VOID - 1}")
    with tree.writer(sequence.name, sequence.frame_names) as writer:
        for frame_name, prompt in sequence.prompts():
            given = set() if prompt is None else set(np.unique(prompt).tolist())
            read = {at: _soft_mask(soft_masks, at, frame_name) for at in ids if at not in given}
            found = {object_id: mask for object_id, mask in read.items() if mask is not None}
            mask = _resize_ids(_merged(found, soft_masks, frame_name, sequence.video.size), sequence.video.size)
            # Prompted pixels win over propagated ones.
            writer.write(frame_name, mask if prompt is None else np.where(prompt > 0, prompt, mask))


def _soft_mask(folder: Path, object_id: int, frame_name: str) -> SoftMask | None:
    mask = read_soft_mask(folder, object_id, frame_name)
    if mask is not None and not ((mask >= 0) & (mask <= 1)).all():
        raise BadResults(f"soft mask {folder / str(object_id) / frame_name}.npy has values that are not in 0..1")
    return mask


def _merged(found: Mapping[int, SoftMask], folder: Path, frame_name: str, size: tuple[int, int]) -> ObjectMask:
    sizes = {mask.shape for mask in found.values()}
    if len(sizes) > 1:
        listed = ", ".join(sorted(map(describe_size, sizes)))
        raise BadResults(f"{folder}: the soft masks of frame {frame_name} are {listed}; all must be of one size")
    if not found:
        return np.zeros(size, np.uint8)
    return merge_soft_masks(torch.from_numpy(np.stack(list(found.values()))), list(found)).numpy()


def _resize_ids(mask: ObjectMask, size: tuple[int, int]) -> ObjectMask:
    if mask.shape == size:
        return mask
    return np.asarray(Image.fromarray(mask).resize(size[::-1], Image.Resampling.NEAREST))
