"""Pictures of a training step: segments, flow, synthesised frames, occlusion."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchvision.utils import flow_to_image

from amd_objectness.losses import Synthesis, Views, synthesise
from amd_objectness.warping import resize

COLOURS: Final = ((230, 60, 60), (60, 180, 75), (70, 100, 240), (245, 190, 40), (160, 70, 200))
"""Colours of the five segments, RGB."""
SCALE: Final = 1
"""Index of the scale of the loss that is drawn: the second one, half the size of the motion network's input."""


def segment_colours(masks: Tensor) -> Tensor:
    """Mix the colours of the segments by their soft masks: float [N, c, H, W] to uint8 [N, 3, H, W]."""
    colours = torch.tensor(COLOURS, dtype=masks.dtype, device=masks.device)[: masks.shape[1]]
    return torch.einsum("ncij,cd->ndij", masks, colours).round().clamp(0, 255).byte()


def training_picture(views: Views, pairs: int = 2) -> npt.NDArray[np.uint8]:
    """Draw pairs: one row for each frame, both frames of a pair below each other.

    The columns are the frame; its segments, with colours mixed by the soft masks; the segment flow on its grid, with
    hue for the direction and saturation for the length; the dense flow, which no loss uses; the frame synthesised from
    the other one; and its visible pixels in white, occluded ones in black.

    Args:
        views: of a batch, with the dense flow.
        pairs: number of pairs to draw.

    Returns:
        uint8 RGB [2 * pairs * h, 6 * w, 3].
    """
    synthesis: Synthesis = synthesise(views.images.flatten(0, 1), views.motion.flows)[SCALE]
    size = (synthesis.images.shape[2], synthesis.images.shape[3])
    columns = [
        _bytes(synthesis.images),
        segment_colours(resize(views.masks.flatten(0, 1), size)),
        flow_to_image(views.motion.flows[SCALE].float()),
        flow_to_image(views.motion.dense[SCALE].float()),
        _bytes(synthesis.reconstructions),
        _bytes(synthesis.visible).expand(-1, 3, -1, -1),
    ]
    rows = torch.cat([column.cpu() for column in columns], 3)  # [2 B, 3, h, 6 w]
    by_pair = rows.unflatten(0, (2, -1)).transpose(0, 1)[:pairs].flatten(0, 1)
    picture: npt.NDArray[np.uint8] = by_pair.permute(0, 2, 3, 1).flatten(0, 1).numpy()
    return picture


def _bytes(images: Tensor) -> Tensor:
    return (images * 255).round().clamp(0, 255).byte()
