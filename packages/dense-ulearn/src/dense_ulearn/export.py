"""The feature network as a file that runs without this package."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from dense_ulearn.checkpoints import load_weights
from dense_ulearn.networks import DenseNetwork
from dense_ulearn.settings import Layer
from vos_shared.checkpoints.exporting import write_program
from vos_shared.errors import UserError
from vos_shared.images import MAX_SIDE
from vos_shared.layers.imagenet import normalise_images


class FeatureProgram(nn.Module):
    """Images in 0..1 to unit-length features, normalisation included."""

    def __init__(self, network: DenseNetwork, layer: Layer) -> None:
        super().__init__()
        self.network, self.layer = network, layer

    def forward(self, images: Tensor) -> Tensor:
        """RGB in 0..1, [1, 3, H, W], to [1, C, h, w]."""
        return self.network.layer(normalise_images(images), self.layer)


def export_features(path: Path, weights: str | None, layer: Layer, size: tuple[int, int]) -> None:
    """Write the network with `torch.export`.

    Args:
        path: the file, usually ``.pt2``.
        weights: as for `load_weights`.
        layer: which output.
        size: height and width of the images.

    Raises:
        BadWeights: the weights cannot be used.
        UserError: a size without pixels, or with too many.
    """
    if min(size) < 1 or max(size) > MAX_SIDE:
        raise UserError(f"export: images of {size[0]} x {size[1]} pixels; give a --size of 1 to {MAX_SIDE}")
    program = FeatureProgram(load_weights(weights).network(), layer).eval()
    write_program(path, program, (torch.zeros(1, 3, *size),))
