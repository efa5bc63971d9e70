"""Export of the appearance network as a file that runs without this package."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from amd_objectness.checkpoints import load_weights
from amd_objectness.networks import AMD
from amd_objectness.settings import STRIDE
from vos_shared.checkpoints.exporting import write_program
from vos_shared.errors import UserError
from vos_shared.images import MAX_SIDE


class SegmentProgram(nn.Module):
    """Images in 0..1 to soft segments, normalisation included."""

    def __init__(self, model: AMD) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """RGB in 0..1, [1, 3, H, W], to [1, 5, h, w]; the segments of a pixel sum to 1."""
        logits: Tensor = self.model(images)
        return logits.softmax(1)


def export_segments(path: Path, weights: str | None, size: tuple[int, int]) -> None:
    """Write the appearance network with `torch.export`.

    Args:
        path: the file to write, with suffix ``.pt2``.
        weights: as for `load_weights`.
        size: height and width of the images.

    Raises:
        BadWeights: the weights cannot be used.
        UserError: a size below the network's stride, or too large.
    """
    if min(size) < STRIDE or max(size) > MAX_SIDE:
        raise UserError(f"export: images of {size[0]} x {size[1]} pixels; give a --size of {STRIDE} to {MAX_SIDE}")
    write_program(path, SegmentProgram(load_weights(weights).network()).eval(), (torch.zeros(1, 3, *size),))
