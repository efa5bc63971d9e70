"""View synthesis: the photometric loss, and the objective that trains both networks with it (specification, 5)."""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from amd_objectness.networks import AMD, SegmentFlow
from amd_objectness.settings import SEGMENTS
from amd_objectness.ssim import structural_distance
from amd_objectness.warping import resize, visibility, warp
from vos_shared.layers.sync_batch_norm import shared_mean

L1_WEIGHT: Final = 0.15
SSIM_WEIGHT: Final = 0.85
SCALES: Final = 4
"""The finest levels, each with weight 1; the fifth has weight 0."""


class Synthesis(NamedTuple):
    """Frames synthesised from each other, at one scale; N = 2 B, all first frames and then all second ones.

    Attributes:
        images: RGB in 0..1, float [N, 3, H, W].
        reconstructions: the same frames, warped from the other ones, float [N, 3, H, W].
        visible: 1 for visible pixels, 0 for occluded ones, float [N, 1, H, W].
    """

    images: Tensor
    reconstructions: Tensor
    visible: Tensor


class Losses(NamedTuple):
    """What `Objective` returns.

    Attributes:
        loss: of the batch, scalar.
        shares: part of all pixels in which each segment is the strongest, float [c]; sums to 1.
    """

    loss: Tensor
    shares: Tensor


def photometric(synthesis: Synthesis) -> Tensor:
    """P(I, R, O), one value for each direction: a ratio of means over the whole batch; float [2].

    The mean of O is that of all processes, so that their mean loss is that of one process with the whole batch.
    """
    parts: list[Tensor] = [part.unflatten(0, (2, -1)) for part in synthesis]  # Each [2, B, ., H, W].
    images, made, visible = parts
    everywhere = (1, 2, 3, 4)
    absolute = ((images - made).abs() * visible).mean(everywhere)
    structure = structural_distance((made * visible).flatten(0, 1), (images * visible).flatten(0, 1))
    structural = structure.unflatten(0, (2, -1)).mean(1)
    terms: Tensor = L1_WEIGHT * absolute + SSIM_WEIGHT * structural
    return terms / shared_mean(visible.mean(everywhere))


def synthesise(images: Tensor, flows: list[Tensor]) -> list[Synthesis]:
    """Synthesise each frame from the other one, at the four scales of the loss.

    Args:
        images: RGB in 0..1, float [2 B, 3, H, W]: all first frames, then all second ones.
        flows: finest first, float [2 B, 2, h, w]; on the grid of the synthesised frame.
    """
    pairs = len(images) // 2
    visible = visibility(flows[0].roll(pairs, 0))
    syntheses = []
    for flow in flows[:SCALES]:
        size = (flow.shape[2], flow.shape[3])
        scaled = images if size == images.shape[2:] else F.interpolate(images, size, mode="area")
        made = warp(scaled.roll(pairs, 0), flow)
        syntheses.append(Synthesis(scaled, made, F.interpolate(visible, size, mode="nearest")))
    return syntheses


def view_synthesis_loss(images: Tensor, flows: list[Tensor]) -> Tensor:
    """Sum over the scales of the photometric term, averaged over both directions; arguments as `synthesise`."""
    return torch.stack([photometric(synthesis).mean() for synthesis in synthesise(images, flows)]).sum()


class Views(NamedTuple):
    """Outputs of the networks for the pairs of a batch.

    Attributes:
        images: as the motion network and the loss see them, RGB in 0..1, float32 [2, B, 3, H, W].
        masks: soft segments at stride 8, float32 [2, B, c, h, w].
        motion: segment flow of 2 B pairs.
    """

    images: Tensor
    masks: Tensor
    motion: SegmentFlow


class Objective(nn.Module):
    """Both networks and their loss in one module, so that distributed training sees a single forward pass."""

    def __init__(self, model: AMD) -> None:
        super().__init__()
        self.model = model

    def forward(self, pairs: Tensor, *, pixels: bool = False) -> Losses:
        """The loss of pairs of frames.

        Args:
            pairs: RGB in 0..1, float [B, 2, 3, H, W].
            pixels: synthesise with `MotionNetwork.pixel_flow`; the appearance network is not used, and the shares are
                zero.
        """
        if pixels:
            return self._pixel_losses(pairs)
        views = self.views(pairs)
        with torch.autocast(pairs.device.type, enabled=False):
            loss = view_synthesis_loss(views.images.flatten(0, 1), views.motion.flows)
        winners = views.masks.argmax(2)  # [2, B, h, w]
        return Losses(loss, F.one_hot(winners, views.masks.shape[2]).float().mean((0, 1, 2, 3)))

    def _pixel_losses(self, pairs: Tensor) -> Losses:
        images = self._stretched(pairs)
        flows = self.model.motion.pixel_flow(images)
        with torch.autocast(pairs.device.type, enabled=False):
            loss = view_synthesis_loss(images.flatten(0, 1), flows)
        # With several processes, each parameter must have a gradient.
        unused = torch.stack([parameter.sum() for parameter in self.model.appearance_parameters()]).sum()
        return Losses(loss + 0 * unused, loss.new_zeros(SEGMENTS))

    def _stretched(self, pairs: Tensor) -> Tensor:
        """Frames at the size of the motion network: [B, 2, 3, H, W] to [2, B, 3, H', W']."""
        images = pairs.transpose(0, 1)
        stretched: Tensor = resize(images.flatten(0, 1), self.model.architecture.motion_size)
        return torch.unflatten(stretched, 0, images.shape[:2])

    def views(self, pairs: Tensor, *, dense: bool = False) -> Views:
        """Segments and flows of pairs of frames, arguments as `forward`; `dense` also gives the dense flow."""
        # One batch of both frames, in the order of the released code: they share the batch statistics.
        logits = self.model(pairs.flatten(0, 1))
        masks = logits.float().softmax(1).unflatten(0, pairs.shape[:2]).transpose(0, 1)
        stretched = self._stretched(pairs)
        return Views(stretched, masks, self.model.motion(stretched, masks, dense=dense))
