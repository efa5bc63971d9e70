"""Choice of the segment that is the object, from a whole video without labels. The paper's own rule is not published
as code; this rule is ours.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

MOST_PAIRS = 16
"""Largest number of pairs of neighbouring frames whose motion is computed; they are spread over the video."""


@dataclass(frozen=True)
class ChannelChoice:
    """The segment that is taken for the object, and the reason.

    Attributes:
        channel: the segment, 0 to 4.
        reason: one line of words and figures.
    """

    channel: int
    reason: str


class ChannelVotes:
    """Sums over the frames of a video what distinguishes an object from the background.

    An object covers more of the centre than of the border, and moves differently from the border. The score of a
    segment is its part of the centre minus its part of the border, times 1 + m. m in 0..1 is the distance of its flow
    from the border's flow, relative to the largest distance of a segment. Segments that are empty or cover the whole
    frame have score 0.
    """

    def __init__(self) -> None:
        self._frames = self._pairs = 0
        self._centre = self._border = self._area = self._apart = torch.zeros(())

    def add_frames(self, masks: Tensor) -> None:
        """Add the soft segments of frames, float [B, c, h, w]."""
        centre, border = regions(masks.shape[2], masks.shape[3], masks.device)
        self._centre = self._centre + (masks * centre).sum((0, 2, 3)).cpu() / centre.sum().cpu()
        self._border = self._border + (masks * border).sum((0, 2, 3)).cpu() / border.sum().cpu()
        self._area = self._area + masks.mean((2, 3)).sum(0).cpu()
        self._frames += len(masks)

    def add_motion(self, masks: Tensor, vectors: Tensor) -> None:
        """Add the distances of the segments' flow from the flow of the frame's border.

        Args:
            masks: soft segments of the frames, float [N, c, h, w].
            vectors: flow of the segments, in pixels, float [N, c, 2].
        """
        _, border = regions(masks.shape[2], masks.shape[3], masks.device)
        weights = (masks * border).sum((2, 3))  # [N, c]
        background = (weights[..., None] * vectors).sum(1, keepdim=True) / weights.sum(1).clamp_min(1e-6)[:, None, None]
        self._apart = self._apart + (vectors - background).norm(dim=2).sum(0).cpu()
        self._pairs += len(masks)

    def choose(self) -> ChannelChoice:
        """The segment with the best score."""
        centre, border = self._centre / self._frames, self._border / self._frames
        apart = self._apart / max(self._pairs, 1) * torch.ones_like(centre)
        scores = (centre - border) * (1 + apart / apart.max().clamp_min(1e-6))
        best = int(scores.argmax())
        area = self._area / self._frames
        others = ", ".join(f"{index}: {score:+.2f}" for index, score in enumerate(scores.tolist()) if index != best)
        return ChannelChoice(
            best,
            f"{centre[best]:.0%} of the centre, {border[best]:.0%} of the border, {area[best]:.0%} of the frame, flow "
            f"{apart[best]:.1f} pixels from the border's; score {scores[best]:+.2f}, others {others}",
        )


def regions(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The centre, an ellipse of half the frame's size, and the border, the outermost tenth: float [h, w] in 0 and 1."""
    rows = (torch.arange(height, device=device) + 0.5) / height * 2 - 1
    columns = (torch.arange(width, device=device) + 0.5) / width * 2 - 1
    radius = rows[:, None] ** 2 + columns**2
    centre = (radius <= max(0.25, float(radius.min()))).float()
    furthest = torch.maximum(rows.abs()[:, None], columns.abs())
    border = (furthest >= min(0.8, float(furthest.max()))).float()
    return centre, border


def spread(count: int, most: int = MOST_PAIRS) -> Iterable[int]:
    """Indices of at most `most` of `count` items, spread evenly."""
    return sorted({index * count // min(count, most) for index in range(min(count, most))})
