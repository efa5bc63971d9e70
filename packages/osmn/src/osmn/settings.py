"""Settings of inference; imports no torch, so that command lines show them at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from vos_shared.errors import UserError
from vos_shared.options import require_numbers

MIN_SIDE = 8
"""Shorter side in pixels of the smallest frame that all variants accept."""


@dataclass(frozen=True)
class InferenceSettings:
    """How a video is segmented; the defaults follow the paper and its code."""

    size: tuple[int, int] | None = None
    """Height and width that frames are stretched to for the network; by default what the weights record, else their own
    size."""
    shorter_side: int | None = None
    """Length in pixels that the shorter side is scaled to for the network, the aspect ratio kept; not with --size."""
    scale_value: float | None = None
    """Factor of the normalised pixels; by default the weights' own (1, or 0.00787 for lite)."""
    pad_ratio: float = 0.03
    """Black margin of the visual guide, as a part of the object's box."""
    keep_aspect: bool = False
    """Fit the visual guide into its square instead of stretching it."""
    blank_background: bool = True
    """Show the visual modulator the object alone; turn it off where the first mask is only a bounding box."""
    guide_frames: Path | None = None
    """Folder with the same frames at a higher resolution, <sequence>/<frame>.jpg or .png; visual guides are cut out of
    these (DAVIS: JPEGImages/Full-Resolution)."""
    aligned_size: tuple[int, int] | None = None
    """masktrack: height and width that its input is padded to with zeros, as Caffe's models need (481 865)."""
    crf: bool = False
    """Refine each mask with a dense CRF, also before it guides the next frame (extra crf of vos-shared)."""
    object_batch: int = 8
    """Objects in one forward pass."""

    def __post_init__(self) -> None:
        if self.size is not None and self.shorter_side is not None:
            raise UserError("osmn: give either a size or a shorter side, not both")
        lengths = [*(self.size or ()), *(self.aligned_size or ())]
        lengths += [] if self.shorter_side is None else [self.shorter_side]
        if lengths and min(lengths) < 16:
            raise UserError(f"osmn: frames of {min(lengths)} pixels are too small for the network; 16 is the least")
        require_numbers(self, "osmn", "pad_ratio", least=0)
        require_numbers(self, "osmn", "scale_value", above=0)
        require_numbers(self, "osmn", "object_batch", least=1)

    def network_size(self, frame_size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of the network's input for frames of this (height, width)."""
        if self.size is not None:
            return self.size
        if self.shorter_side is None:
            return frame_size
        scale = self.shorter_side / min(frame_size)
        return round(frame_size[0] * scale), round(frame_size[1] * scale)


@dataclass(frozen=True)
class OnlineSettings:
    """Fine-tuning on an object's first frame before it is followed (specification, section 10).

    Every object has a network of its own until its video ends: 660 MB each for the default one, and four times that
    while it is tuned.
    """

    iterations: int = 100
    """Steps, of one sample each."""
    learning_rate: float = 1e-5
    """Learning rate, constant."""
    scales: tuple[float, ...] = (0.5, 0.8, 1.0)
    """Factors of the frame's size, one of them drawn for each step."""
    fix_bn: bool = False
    """Keep the spatial modulator's stored batch statistics; the original updates them."""
    models: Path | None = None
    """Keep the fine-tuned networks as FOLDER/<video>/<n>-<origin>.safetensors, n counts the video's objects. origin is
    a hash of frame, mask, weights and settings; a network with the same hash is read and not trained again."""

    def __post_init__(self) -> None:
        require_numbers(self, "osmn", "iterations", least=1)
        require_numbers(self, "osmn", "learning_rate", above=0)
        require_scales(self.scales)


def require_scales(scales: tuple[float, ...]) -> None:
    """Refuse factors that no frame can be scaled by.

    Raises:
        UserError: no factor, or one that is not above 0 and finite.
    """
    if not scales or not all(0 < scale < math.inf for scale in scales):
        raise UserError(f"osmn: --scales is {' '.join(map(str, scales)) or 'empty'}; it takes numbers above 0")
