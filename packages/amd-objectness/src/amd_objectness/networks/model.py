"""Appearance and motion networks together."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from amd_objectness.networks.appearance import SegmentHead
from amd_objectness.networks.backbone import Backbone
from amd_objectness.networks.motion import MotionNetwork
from amd_objectness.settings import Architecture
from vos_shared.layers.imagenet import normalise_images


class AMD(nn.Module):
    """Appearance-motion decomposition; its parts have the names of the official checkpoints.

    ``backbone2`` and ``decode_head2`` are the appearance network, ``decode_head.flownet`` is the motion network. The
    start values are random, as in the released code.

    Args:
        architecture: the paper's by default.
    """

    def __init__(self, architecture: Architecture | None = None) -> None:
        super().__init__()
        self.architecture = architecture or Architecture()
        self.backbone2 = Backbone(self.architecture.backbone, self.architecture.width)
        self.decode_head = nn.ModuleDict({"flownet": MotionNetwork(standardise=self.architecture.standardise)})
        self.decode_head2 = SegmentHead(self.backbone2.channels, width=self.architecture.head_width)

    @property
    def motion(self) -> MotionNetwork:
        """The motion network."""
        return cast(MotionNetwork, self.decode_head["flownet"])

    def appearance_parameters(self) -> list[nn.Parameter]:
        """Parameters of the appearance network."""
        return [*self.backbone2.parameters(), *self.decode_head2.parameters()]

    def forward(self, images: Tensor) -> Tensor:
        """Segment logits of single images, all that is needed at test time.

        Args:
            images: RGB in 0..1, float [B, 3, H, W].

        Returns:
            float [B, 5, h, w] with h = ceil(H / 8); a softmax over the channels makes soft segments of them.
        """
        logits: Tensor = self.decode_head2(self.backbone2(normalise_images(images)))
        return logits
