"""The training objective: anchors, pseudo labels, space-time self-training and cross-view consistency.

Axis letters: B clips, T frames, C key channels, h w feature cells, A = G * G anchors of one clip, N = B * T. Both
losses use cosine similarities divided by a temperature, so keys have unit length.

The published program computes logits over all B * A anchors (1024 channels at its batch size) and warps them into the
second view. Sampling to the nearest cell commutes with the product with the anchors. So here the warp is an index map
over cells, and the keys are gathered before the product. Pseudo labels need the A anchors of their own clip only.
`tests/test_losses.py` holds the plain form; both give the same numbers.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from dense_ulearn.collectives import Ranks
from dense_ulearn.presets import ObjectiveSettings
from vos_shared.errors import UserError


class Offsets(NamedTuple):
    """Offsets of the two grids in every clip of a batch, int64 [B] each, in cells."""

    grid_x: Tensor
    grid_y: Tensor
    reference_x: Tensor
    reference_y: Tensor


class Losses(NamedTuple):
    """The losses of one batch.

    Attributes:
        main: the sum that is minimised, scalar.
        temp: space-time self-training loss, scalar.
        cross_key: cross-view consistency loss, scalar.
        labels: pseudo labels, int64 [B, T, h, w] in 0..(B * A - 1) of this rank's clips; frame 0 included.
        anchor_cells: flat positions of the anchors in frame 0, int64 [B, A].
    """

    main: Tensor
    temp: Tensor
    cross_key: Tensor
    labels: Tensor
    anchor_cells: Tensor


def check_cells(height: int, width: int, objective: ObjectiveSettings) -> None:
    """Refuse a feature map that the grids do not divide.

    Raises:
        UserError: height or width, in cells, is not a multiple of a grid size.
    """
    for grid in (objective.grid, objective.reference_grid):
        if height % grid or width % grid or not height or not width:
            raise UserError(
                f"training: a feature map of {height}x{width} cells cannot hold a regular {grid}x{grid} grid; "
                f"choose a crop whose sides are multiples of {8 * grid} pixels or another grid"
            )


def draw_offsets(clips: int, height: int, width: int, objective: ObjectiveSettings, generator: Generator) -> Offsets:
    """Draw one offset per clip, axis and grid: the grids move rigidly, by less than one grid step.

    Args:
        clips: B.
        height: h of the feature map, in cells.
        width: w of the feature map, in cells.
        objective: grid sizes.
        generator: on the CPU; used in the order grid x, grid y, reference x, reference y.
    """

    def draw(size: int, grid: int) -> Tensor:
        return torch.randint(size // grid, (clips,), generator=generator)

    return Offsets(
        draw(width, objective.grid),
        draw(height, objective.grid),
        draw(width, objective.reference_grid),
        draw(height, objective.reference_grid),
    )


def grid_cells(offset_x: Tensor, offset_y: Tensor, height: int, width: int, grid: int) -> Tensor:
    """Flat positions of a jittered regular grid, row-major: offsets [B] -> int64 [B, grid * grid]."""
    steps = torch.arange(grid, device=offset_x.device)
    columns = steps * (width // grid) + offset_x[:, None]  # [B, G]
    rows = steps * (height // grid) + offset_y[:, None]
    return (rows[:, :, None] * width + columns[:, None, :]).flatten(1)


def warp_cells(theta: Tensor, height: int, width: int) -> Tensor:
    """The source cell of every target cell under an affine map, nearest neighbour, `align_corners=False`.

    Args:
        theta: affine maps from target to source in coordinates -1..1, float [N, 2, 3].
        height: h, in cells.
        width: w, in cells.

    Returns:
        Flat source positions, int64 [N, h * w]. A target outside of the source gets cell 0; the zoom of the second view
        never makes one.
    """
    cells = torch.arange(height * width, dtype=torch.float32, device=theta.device)  # Exact up to 2 ** 24 cells.
    cells = cells.view(1, 1, height, width).expand(len(theta), -1, -1, -1)
    where = F.affine_grid(theta.float(), [len(theta), 1, height, width], align_corners=False)
    return F.grid_sample(cells, where, mode="nearest", align_corners=False).long().flatten(1)


def gather_cells(keys: Tensor, cells: Tensor) -> Tensor:
    """Read keys [N, C, h * w] at flat positions [N, M] -> [N, M, C]."""
    index = cells[:, None].expand(-1, keys.shape[1], -1)
    return keys.gather(2, index).transpose(1, 2)


@torch.no_grad()
def pseudo_labels(anchors: Tensor, keys: Tensor) -> Tensor:
    """The most similar anchor of its own clip for each key.

    The published program takes the argmax of a softmax over all anchors in which those of other clips are set to zero.
    The softmax is monotone, so the logits of the clip itself give the same.

    Args:
        anchors: [B, A, C].
        keys: keys of the regularising view, [B, M, C].

    Returns:
        int64 [B, M] in 0..(B * A - 1): anchor a of clip b is b * A + a.
    """
    own = torch.einsum("bmc,bac->bma", keys, anchors).argmax(2)
    return own + anchors.shape[1] * torch.arange(len(anchors), device=own.device)[:, None]


def cross_view_loss(main: Tensor, other: Tensor, temperature: float, ranks: Ranks) -> Tensor:
    """Cross entropy that matches each cell of the main view with the same cell of the other view, among all cells.

    Args:
        main: keys of the main view at the sampled cells of all clips, [M, C].
        other: keys of the regularising view at the same cells, [M, C].
        temperature: divides the similarities.
        ranks: with several processes, the cells of all of them are candidates.
    """
    target = torch.arange(len(main), device=main.device) + ranks.rank * len(main)
    return F.cross_entropy(main @ ranks.gather(other).T / temperature, target)


def training_losses(
    keys: Tensor,
    other_keys: Tensor,
    theta: Tensor,
    other_theta: Tensor,
    offsets: Offsets,
    objective: ObjectiveSettings,
    ranks: Ranks | None = None,
) -> Losses:
    """Both losses of one batch.

    Args:
        keys: unit-length keys of the main view, float [B, T, C, h, w]; frame 0 carries the anchors.
        other_keys: those of the regularising view; gradient flows through frame 0 only, if the caller lets it.
        theta: affine maps that align the main view with the regularising one, [B, T, 2, 3].
        other_theta: the same for the regularising view; the identity as the method uses it.
        offsets: of the two grids, one per clip.
        objective: settings.
        ranks: with several processes, the anchors of all of them are candidates; None is one process.
    """
    ranks = ranks or Ranks()
    clips, frames, channels, height, width = keys.shape
    flat, other_flat = keys.flatten(3), other_keys.flatten(3)  # [B, T, C, h * w]
    source = warp_cells(theta.flatten(0, 1), height, width).unflatten(0, (clips, frames))  # [B, T, h * w]
    other_source = warp_cells(other_theta.flatten(0, 1), height, width).unflatten(0, (clips, frames))

    anchor_cells = grid_cells(offsets.grid_x, offsets.grid_y, height, width, objective.grid).to(keys.device)
    anchors = gather_cells(flat[:, 0], anchor_cells)  # [B, A, C]
    with torch.no_grad():
        warped = gather_cells(other_flat.flatten(0, 1), other_source.flatten(0, 1))  # [N, h * w, C]
        labels = pseudo_labels(anchors, warped.reshape(clips, -1, channels)).view(clips, frames, -1)
    seen = gather_cells(flat[:, 1:].flatten(0, 1), source[:, 1:].flatten(0, 1))  # The anchor frame is left out.
    logits = seen.flatten(0, 1) @ ranks.gather(anchors.flatten(0, 1)).T / objective.temperature
    targets = labels[:, 1:].flatten() + ranks.rank * anchors.shape[0] * anchors.shape[1]
    temp = F.cross_entropy(logits, targets)

    places = grid_cells(offsets.reference_x, offsets.reference_y, height, width, objective.reference_grid)
    places = places.to(keys.device)
    cross = cross_view_loss(
        gather_cells(flat[:, 0], source[:, 0].gather(1, places)).flatten(0, 1),
        gather_cells(other_flat[:, 0], other_source[:, 0].gather(1, places)).flatten(0, 1),
        objective.temperature,
        ranks,
    )
    main = objective.cross_view_weight * cross + temp
    return Losses(main, temp, cross, labels.view(clips, frames, height, width), anchor_cells)
