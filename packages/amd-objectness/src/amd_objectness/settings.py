"""Settings of networks and inference; imports no torch, so that command lines show them at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeAlias

from vos_shared.errors import UserError
from vos_shared.images import MAX_SIDE
from vos_shared.options import require_numbers

BackboneName: TypeAlias = Literal["resnet50", "resnet18"]

SEGMENTS: Final = 5
"""Soft segments of an image, c in the paper."""
STRIDE: Final = 8
"""Side of a cell of the segments, in pixels of the image."""
MOTION_STRIDE: Final = 64
"""Stride of the coarsest level of the motion network; sides of its input are multiples of it."""


@dataclass(frozen=True)
class Architecture:
    """Architecture of both networks; the defaults are those of the released code."""

    backbone: BackboneName = "resnet50"
    """Backbone of the appearance network: the paper's ResNet-50, or ResNet-18 for small machines (ours)."""
    width: int = 64
    """Channels of the backbone's first stage, times 4 in a ResNet-50; the later stages have 2, 4 and 8 times as many.
    64 in the paper."""
    head_width: int = 256
    """Channels of the two convolutions of the segment head; 256 in the paper."""
    motion_size: tuple[int, int] = (384, 640)
    """Height and width that both frames are stretched to for the motion network and the losses; multiples of 64."""
    standardise: bool = False
    """Standardise the features of a frame before the correlation, and start the motion network with other values. It
    then learns flow from far fewer pairs (Jonschkowski et al., What Matters in Unsupervised Optical Flow, ECCV 2020).
    Not in the release."""

    def __post_init__(self) -> None:
        require_numbers(self, "amd-objectness", "width", "head_width", least=1, below=4097)
        if min(self.motion_size) < MOTION_STRIDE or any(side % MOTION_STRIDE for side in self.motion_size):
            height, width = self.motion_size
            raise UserError(
                f"amd-objectness: --motion-size {height} {width}: height and width are multiples of {MOTION_STRIDE}"
            )


Channel: TypeAlias = Literal["0", "1", "2", "3", "4", "auto", "all"]
"""Which segment is the object: one of the five, counted from 0 as in the released code; chosen for each video; or
each one."""
RELEASED_CHANNEL: Final = 1
"""Channel that the released code keeps; its README says 0. The channel of the object differs from training to
training."""
RELEASED_SIDE: Final = 392
"""Length in pixels of the shorter side at test time, int(400 * 0.98)."""
RELEASED_THRESHOLD: Final = 0.5
"""Threshold of the released evaluator."""


@dataclass(frozen=True)
class InferenceSettings:
    """Settings of segmentation; the defaults are the released code's."""

    channel: Channel | None = None
    """Segment that is the object: 0 to 4; auto, chosen for each video from all its frames without labels; all, each
    segment an object, ids 1 to 5; by default the one that the weights name, else 1, which the released code keeps."""
    shorter_side: int | None = None
    """Length in pixels that the shorter side is scaled to for the network; by default what the weights ask for, else
    392."""
    threshold: float | None = None
    """Pixels whose soft mask is above this value are object 1; by default what the weights ask for, else 0.5. With
    --channel all each pixel belongs to its strongest segment instead."""
    logits_first: bool = False
    """Enlarge the logits and then take the softmax, which gives sharper borders; the released code takes the softmax
    first."""
    batch: int = 8
    """Frames in one forward pass when --channel auto reads the whole video first."""

    def __post_init__(self) -> None:
        if self.shorter_side is not None and not STRIDE <= self.shorter_side <= MAX_SIDE:
            raise UserError(
                f"amd-objectness: --shorter-side is {self.shorter_side}; give {STRIDE} to {MAX_SIDE} pixels"
            )
        require_numbers(self, "amd-objectness", "threshold", above=0, below=1)
        require_numbers(self, "amd-objectness", "batch", least=1)


@dataclass(frozen=True)
class AdaptationSettings:
    """Settings of training on a video before it is segmented. The paper reports this step, but the released code does
    not contain it: all values here are ours, and the optimiser is that of the released training.
    """

    iterations: int = 100
    """Steps on each video, or with --together on the whole data set."""
    learning_rate: float = 1e-4
    """Learning rate, constant."""
    pairs: int = 2
    """Pairs of frames a step."""
    models: Path | None = None
    """Keep adapted networks as FOLDER/<video>/adapted-<origin>.safetensors. origin is a hash of weights, settings and
    frames; a network with the same hash is read and not trained again."""

    def __post_init__(self) -> None:
        require_numbers(self, "amd-objectness", "iterations", "pairs", least=1)
        require_numbers(self, "amd-objectness", "learning_rate", above=0)
