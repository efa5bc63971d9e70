"""Zero-shot segmentation: the appearance network on single frames (specification, 9)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from amd_objectness.channels import ChannelChoice, ChannelVotes, spread
from amd_objectness.checkpoints import Weights, load_weights
from amd_objectness.data import pixels_of, scaled_size
from amd_objectness.networks import AMD, SegmentFlow
from amd_objectness.networks.frozen import FrozenAppearance
from amd_objectness.settings import (
    RELEASED_CHANNEL,
    RELEASED_SIDE,
    RELEASED_THRESHOLD,
    AdaptationSettings,
    InferenceSettings,
)
from amd_objectness.warping import resize
from vos_shared.errors import UserError
from vos_shared.method import Frame, ModelInfo, ObjectMask, Segmentation, Segmenter
from vos_shared.options import settings_from
from vos_shared.runtime.device import autocast, choose_device, choose_precision
from vos_shared.steps import check_step
from vos_shared.terminal import escaped
from vos_shared.video import Video

LONGEST = int(9999 * 0.98)
"""Largest length in pixels that the longer side is scaled to, as released."""


class SegmentNetwork:
    """Frames to segment logits.

    Args:
        model: both networks; they are copied.
        shorter_side: length in pixels that the shorter side of frames is scaled to.
        device: where the copy runs.
        dtype: of the convolutions.
    """

    def __init__(self, model: AMD, shorter_side: int, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        self.model = deepcopy(model).eval().to(device).to(memory_format=torch.channels_last)
        self.shorter_side, self.device, self.dtype = shorter_side, device, dtype
        exact_on_cpu = device.type == "cpu" and dtype == torch.float32
        self._appearance = FrozenAppearance(self.model) if exact_on_cpu else self.model

    def images(self, frames: Sequence[Frame]) -> Tensor:
        """Frames, uint8 RGB [H, W, 3] of one size, as the network sees them: RGB in 0..1, float [B, 3, H', W']."""
        height, width = frames[0].shape[:2]
        pixels = pixels_of(frames, scaled_size((height, width), self.shorter_side, LONGEST))
        return (pixels.to(self.device).float() / 255).contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def logits(self, frames: Sequence[Frame]) -> Tensor:
        """Segment logits of frames of one size, float32 [B, 5, h, w] at an eighth of the scaled frames."""
        with autocast(self.device, self.dtype):
            logits: Tensor = self._appearance(self.images(frames))
        return logits.float().contiguous()

    @torch.inference_mode()
    def vectors(self, frames: Sequence[Frame], logits: Tensor) -> Tensor:
        """Flow of each segment between two frames, in pixels of the motion network's input: float [2, c, 2].

        Args:
            frames: two frames of one size.
            logits: segment logits of both frames, float [2, c, h, w].
        """
        images = resize(self.images(frames), self.model.architecture.motion_size)
        with autocast(self.device, self.dtype):
            motion: SegmentFlow = self.model.motion(images[:, None], logits.softmax(1)[:, None])
        return motion.vectors


class AMDSegmenter(Segmenter):
    """Segments each frame by itself; object 1 is the segment that `InferenceSettings.channel` names.

    Args:
        network: computes segment logits.
        info: parameters and origin of the weights, for reports.
        settings: of inference.
        channel: the segment that the weights name as the object.
        threshold: the threshold that the weights name.

    Attributes:
        choice: the choice of channel ``auto`` for the prepared video; None without one.

    Example:
        segmenter = amd_objectness.inference.load()
        masks = [segmenter.step(frame).mask for frame in video]
    """

    def __init__(
        self,
        network: SegmentNetwork,
        info: ModelInfo,
        settings: InferenceSettings | None = None,
        channel: int = RELEASED_CHANNEL,
        threshold: float = RELEASED_THRESHOLD,
    ) -> None:
        self.network = network
        self.settings = settings or InferenceSettings()
        self._threshold = threshold if self.settings.threshold is None else self.settings.threshold
        self._info, self._named = info, channel
        self.reset()

    @property
    def info(self) -> ModelInfo:
        """Parameters and origin of the weights."""
        return self._info

    @property
    def decisions(self) -> dict[str, object]:
        """The channel that ``auto`` chose for the video, and the reason."""
        return {} if self.choice is None else asdict(self.choice)

    def reset(self) -> None:
        """Forget the video."""
        self.choice: ChannelChoice | None = None
        self._size: tuple[int, int] | None = None

    def prepare(self, video: Video) -> None:
        """If the channel is ``auto``, choose it from all frames and print the choice with its reason.

        Raises:
            BadVideo: a frame cannot be read.
        """
        self.reset()
        self._say_choice(video)

    def _say_choice(self, video: Video) -> None:
        if self.settings.channel == "auto":
            self.choice = self._choose(video)
            print(f"{escaped(video.name)}: channel {self.choice.channel}, {self.choice.reason}")

    def _choose(self, video: Video) -> ChannelChoice:
        votes, count = ChannelVotes(), len(video)
        wanted = set(spread(count - 1))  # First frames of the pairs whose motion is computed.
        before: tuple[Frame, Tensor] | None = None
        index = 0
        for frames in _batches(video, self.settings.batch):
            logits = self.network.logits(frames)
            votes.add_frames(logits.softmax(1))
            for frame, single in zip(frames, logits, strict=True):
                if before is not None and index - 1 in wanted:
                    both = torch.stack([before[1], single])
                    vectors = self.network.vectors([before[0], frame], both)
                    votes.add_motion(both.softmax(1).flip(0), vectors)  # Segments of a frame move that frame.
                before, index = (frame, single), index + 1
        return votes.choose()

    def step(self, frame: Frame, prompt: ObjectMask | None = None, *, soft_masks: bool = False) -> Segmentation:
        """Segment the next frame; see `vos_shared.method.Segmenter.step`.

        Raises:
            UserError: a prompted object; channel ``auto`` without `prepare`.
        """
        self._size = check_step(frame, prompt, self._size)
        if prompt is not None and prompt.any():
            raise UserError("amd-objectness finds objects by itself and takes none; leave out the prompt")
        return self.segment([frame], soft_masks=soft_masks)[0]

    def segment(self, frames: Sequence[Frame], *, soft_masks: bool = False) -> list[Segmentation]:
        """Segment frames of one size in one forward pass; the result equals that of single steps up to rounding.

        Args:
            frames: uint8 RGB [H, W, 3] each.
            soft_masks: also return soft masks: the object's, or with channel ``all`` those of all five segments.
        """
        soft = self.soft_segments(self.network.logits(frames), (frames[0].shape[0], frames[0].shape[1]))
        if self.settings.channel == "all":
            ids = (soft.argmax(1) + 1).byte().cpu().numpy()
        else:
            soft = soft[:, self.channel, None]
            ids = (soft[:, 0] > self._threshold).byte().cpu().numpy()
        if not soft_masks:
            return [Segmentation(mask) for mask in ids]
        return [Segmentation(mask, own) for mask, own in zip(ids, soft.cpu().numpy(), strict=True)]

    @torch.inference_mode()
    def soft_segments(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Soft segments at the frames' size, float32 [B, 5, H, W] in 0..1, from logits [B, 5, h, w]."""
        if self.settings.logits_first:
            return resize(logits, size).softmax(1)
        return resize(logits.softmax(1), size).clamp(0, 1)

    @property
    def channel(self) -> int:
        """The segment that is object 1.

        Raises:
            UserError: the channel is ``auto``, and `prepare` was not called.
        """
        chosen = self.settings.channel
        if chosen == "auto":
            if self.choice is None:
                raise UserError(
                    "amd-objectness chooses the channel from the whole video; call prepare(video) before the first "
                    "step, or give a channel from 0 to 4"
                )
            return self.choice.channel
        return self._named if chosen is None else int(chosen)


def _batches(video: Video, size: int) -> Iterator[list[Frame]]:
    frames = iter(video)
    while batch := list(islice(frames, size)):
        yield batch


def load(
    weights: str | Path | None = None,
    device: str = "auto",
    precision: str = "fp32",
    *,
    adapt: bool = False,
    **options: Any,
) -> AMDSegmenter:
    """Build the segmenter.

    Args:
        weights: as for `amd_objectness.checkpoints.load_weights`.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        precision: ``fp32``, ``bf16`` or ``fp16``, of the convolutions.
        adapt: train on each video before it is segmented (``amd-objectness+adapt``).
        options: fields of `InferenceSettings`, and with `adapt` of `AdaptationSettings`.

    Raises:
        UserError: unusable weights, device, precision or option.
    """
    own = {name: value for name, value in options.items() if name in AdaptationSettings.__dataclass_fields__}
    rest = {name: value for name, value in options.items() if not (adapt and name in own)}
    settings = settings_from(InferenceSettings, rest, "amd-objectness")
    target = choose_device(device)
    dtype = choose_precision(precision, target)
    loaded = load_weights(weights)
    model = loaded.network()
    network = SegmentNetwork(
        model, settings.shorter_side or _stored(loaded, "shorter_side", RELEASED_SIDE), target, dtype
    )
    info = ModelInfo(sum(value.numel() for value in model.parameters()), loaded.description, loaded.trained)
    channel = _stored(loaded, "channel", RELEASED_CHANNEL)
    threshold = float(loaded.metadata.get("threshold", RELEASED_THRESHOLD))
    if not adapt:
        return AMDSegmenter(network, info, settings, channel, threshold)
    from amd_objectness.adaptation import AdaptingSegmenter

    adaptation = settings_from(AdaptationSettings, own, "amd-objectness")
    return AdaptingSegmenter(network, info, settings, channel, threshold, adaptation)


def _stored(weights: Weights, name: str, default: int) -> int:
    """A whole number from the metadata of the weights."""
    found = weights.metadata.get(name, "")
    return int(found) if found.isdecimal() else default
