"""Pictures for TensorBoard: anchors, pseudo labels and assignment of the objective; segmented frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from dense_ulearn.augmentation import Views
from dense_ulearn.losses import Losses, gather_cells, warp_cells
from dense_ulearn.presets import ObjectiveSettings
from vos_shared.masks import overlay
from vos_shared.method import Frame, ObjectMask

ANCHOR_COLOUR: Final = (255, 64, 64)
PICTURE_HEIGHT: Final = 240
"""Most rows that a segmented frame has in a picture."""


def training_picture(
    views: Views[Tensor], keys: Tensor, losses: Losses, objective: ObjectiveSettings
) -> npt.NDArray[np.uint8]:  # fmt: skip
    """One row per frame, clip by clip; the columns are five squares of the crop's size.

    The columns are: the main view, in frame 0 with the anchor cells in red; the main view aligned with the other; the
    other view; the pseudo labels; the assignment that is trained, its colours mixed by probability. The last two become
    similar during training.

    Args:
        views: both views, uint8 [B, T, 3, S, S], and theta, float32 [B, 2, 3].
        keys: of the main view, [B, T, C, h, w].
        losses: of these clips.
        objective: the settings.

    Returns:
        uint8 RGB [B * T * S, 5 * S, 3].
    """
    frames, side = views.main.shape[1], views.main.shape[-1]
    theta = views.theta[:, None].expand(-1, frames, -1, -1).flatten(0, 1)
    main = views.main.cpu().flatten(0, 1)  # [N, 3, S, S]
    grid = F.affine_grid(theta.cpu(), list(main.shape), align_corners=False)
    warped = F.grid_sample(main.float(), grid, align_corners=False).byte()
    count = losses.anchor_cells.numel()
    colours = label_colours(count)
    labels = colours[losses.labels.cpu().flatten(0, 1)].permute(0, 3, 1, 2)  # [N, 3, h, w]
    mixed = (_assignment(keys, losses, theta, objective).cpu() @ colours.float()).transpose(1, 2)
    mixed = mixed.unflatten(2, labels.shape[2:]).byte()
    marked = _mark_anchors(main, losses, labels.shape[2:], frames)
    columns = [marked, warped, views.other.cpu().flatten(0, 1), *(_enlarge(cells, side) for cells in (labels, mixed))]
    rows: npt.NDArray[np.uint8] = torch.cat(columns, 3).permute(0, 2, 3, 1).flatten(0, 1).cpu().numpy()
    return rows


def segmentation_picture(
    frames: Sequence[Frame], truth: Sequence[ObjectMask], found: Sequence[ObjectMask]
) -> npt.NDArray[np.uint8]:
    """One row per frame: the frame, the frame with its true mask, and with the mask that was found.

    Args:
        frames: some frames of a video, uint8 RGB [H, W, 3].
        truth: their object ids, uint8 [H, W].
        found: the segmented masks, the same.

    Returns:
        uint8 RGB [len(frames) * h, 3 * w, 3], each h x w scaled down to `PICTURE_HEIGHT` rows at most.
    """
    step = -(-len(frames[0]) // PICTURE_HEIGHT)
    rows = [
        np.hstack([part[::step, ::step] for part in (frame, overlay(frame, true), overlay(frame, mask))])
        for frame, true, mask in zip(frames, truth, found, strict=True)
    ]
    picture: npt.NDArray[np.uint8] = np.vstack(rows)
    return picture


def label_colours(count: int) -> Tensor:
    """A colour for each of `count` labels, uint8 [count, 3]; neighbours differ."""
    hue = (torch.arange(1, count + 1) * 123 % count) / count * 6
    ramps = [(hue - 3).abs() - 1, 2 - (hue - 2).abs(), 2 - (hue - 4).abs()]
    return (torch.stack(ramps, 1).clamp(0, 1) * 255).byte()


def _assignment(keys: Tensor, losses: Losses, theta: Tensor, objective: ObjectiveSettings) -> Tensor:
    """Probabilities over all anchors, aligned with the other view, [N, h * w, A * B]."""
    flat = keys.flatten(3)
    anchors = gather_cells(flat[:, 0], losses.anchor_cells).flatten(0, 1)
    source = warp_cells(theta.to(keys.device), *keys.shape[-2:])
    return (gather_cells(flat.flatten(0, 1), source) @ anchors.T / objective.temperature).softmax(2)


def _mark_anchors(main: Tensor, losses: Losses, cells: torch.Size, frames: int) -> Tensor:
    """Paint the anchor cells of every clip's frame 0: [N, 3, S, S]."""
    chosen = torch.zeros(len(losses.anchor_cells), cells.numel()).scatter(1, losses.anchor_cells.cpu(), 1.0)
    mask = _enlarge(chosen.view(-1, 1, *cells), main.shape[-1]) > 0
    marked = main.clone()
    red = torch.tensor(ANCHOR_COLOUR, dtype=torch.uint8).view(3, 1, 1)
    marked[::frames] = torch.where(mask, marked[::frames] // 2 + red // 2, marked[::frames])
    return marked


def _enlarge(cells: Tensor, side: int) -> Tensor:
    return F.interpolate(cells.float(), (side, side), mode="nearest").to(cells.dtype)
