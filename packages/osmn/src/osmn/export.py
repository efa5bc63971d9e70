"""The network as files that run without this package."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from osmn.checkpoints import load_weights
from osmn.networks import GUIDE_SIZE, OSMN
from osmn.settings import MIN_SIDE
from vos_shared.checkpoints.exporting import write_program
from vos_shared.errors import UserError


class VisualProgram(nn.Module):
    """The visual modulator alone."""

    def __init__(self, model: OSMN) -> None:
        super().__init__()
        self.model = model

    def forward(self, guide: Tensor) -> Tensor | None:
        """[1, 3, 224, 224] -> [1, C]."""
        return self.model.visual_modulation(guide)


def export_programs(folder: Path, weights: str | None, size: tuple[int, int]) -> list[Path]:
    """Write ``visual.pt2`` and ``frame.pt2`` with `torch.export`, for one object.

    Args:
        folder: gets the files; created if missing.
        weights: as for `load_weights`.
        size: (height, width) of the frames.

    Returns:
        The files; a network without visual modulator has only the second.

    Raises:
        UserError: the weights cannot be used, or the frames are too small.
    """
    if min(size) < MIN_SIDE:
        raise UserError(f"osmn: frames of {size[1]}x{size[0]} are too small for the network; the least is {MIN_SIDE}")
    model = load_weights(weights).model.requires_grad_(False)
    image, spatial = torch.zeros(1, 3, *size), torch.zeros(1, 1, *size)
    gamma: Tensor | None = None
    files: list[Path] = []
    if model.modulator is not None:
        guide = torch.zeros(1, 3, GUIDE_SIZE, GUIDE_SIZE)
        gamma = model.visual_modulation(guide)
        files.append(write_program(folder / "visual.pt2", VisualProgram(model).eval(), (guide,)))
    files.append(write_program(folder / "frame.pt2", model, (image, spatial, gamma)))
    return files
