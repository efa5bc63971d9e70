"""Test-time adaptation: the unchanged loss on a video's own pairs, before it is segmented (specification, 9.3).

The paper reports this step, but the released code does not contain it. Steps, learning rate and pairs are ours.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.optim import Adam

from amd_objectness.checkpoints import Weights, load_weights, read_weights, save_weights
from amd_objectness.data import crop_pair, draw_pair, pixels_of, scaled_size
from amd_objectness.inference import AMDSegmenter, SegmentNetwork, load
from amd_objectness.losses import Objective
from amd_objectness.networks import AMD
from amd_objectness.presets import Optimisation, Sampling
from amd_objectness.settings import RELEASED_CHANNEL, RELEASED_THRESHOLD, STRIDE, AdaptationSettings, InferenceSettings
from vos_shared.errors import UserError
from vos_shared.kept import ORIGIN, fingerprint, is_kept, kept_path
from vos_shared.layers.quick_convolutions import use_quick_convolutions
from vos_shared.method import Frame, ModelInfo, ObjectMask, Segmentation
from vos_shared.options import changed_settings
from vos_shared.segment import SegmentArguments
from vos_shared.training.online import trained_online
from vos_shared.video import Video

SEED: Final = 0
"""Seed of pairs, crops and dropout, so that the same video gives the same network."""


def sampling_for(shorter_side: int) -> Sampling:
    """How frames become pairs for a network that segments frames with this shorter side: as in its training.

    The release trains with a shorter side of 400 and crops of 384, and tests with a shorter side of 392.
    """
    longer = max(round(shorter_side / 0.98), STRIDE + 1)
    crop = int(longer * Sampling().scale[0]) // STRIDE * STRIDE
    return Sampling(shorter_side=longer, crop=crop)


class PairFrames:
    """Random pairs of frames; each frame that they need is decoded once, scaled, and kept in a temporary file.

    Args:
        videos: of two frames or more.
        count: number of pairs to draw.
        sampling: how frames become pairs.

    Raises:
        UserError: a video of one frame.
        BadVideo: a frame cannot be read.
    """

    def __init__(self, videos: Sequence[Video], count: int, sampling: Sampling) -> None:
        for video in videos:
            if len(video) < 2:
                raise UserError(
                    f"amd-objectness: video {video.name} has one frame; adaptation learns from pairs of frames, so it "
                    "needs two at least"
                )
        rng = np.random.default_rng((SEED, 2))
        order = [int(rng.integers(len(videos))) for _ in range(count)]
        self.pairs = [(item, *draw_pair(len(videos[item]), sampling.gap, rng)) for item in order]
        self._frames = {
            (item, index): frame
            for item, video in enumerate(videos)
            for index, frame in self._scaled(item, video, sampling.shorter_side)
        }

    def _scaled(self, item: int, video: Video, shorter: int) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
        wanted = sorted({index for own, *both in self.pairs if own == item for index in both})
        if not wanted:
            return
        size = scaled_size(video.size, shorter)
        with tempfile.TemporaryFile() as file:  # It has no name, so that a killed process leaves nothing behind.
            store = np.memmap(file, np.uint8, "w+", shape=(len(wanted), *size, 3))
        places = {index: place for place, index in enumerate(wanted)}
        for index, frame in enumerate(video):
            if index in places:
                store[places[index]] = pixels_of([frame], size)[0].permute(1, 2, 0).numpy()
                yield index, store[places[index]]

    def pair(self, number: int) -> list[Frame]:
        """Both frames of a pair, uint8 RGB [H, W, 3]."""
        item, first, second = self.pairs[number]
        return [np.asarray(self._frames[item, index]) for index in (first, second)]


def adapt(
    model: AMD, videos: Sequence[Video], settings: AdaptationSettings, sampling: Sampling, device: torch.device
) -> AMD:
    """Train a copy of both networks on the videos' own pairs.

    Args:
        model: the start values; it is not changed.
        videos: that will be segmented.
        settings: steps, learning rate and pairs.
        sampling: how frames become pairs.
        device: where the copy trains.

    Returns:
        The trained copy in evaluation mode, on the device.

    Raises:
        UserError: a video of one frame, or the loss is not finite.
    """
    frames = PairFrames(videos, settings.iterations * settings.pairs, sampling)
    cuda = [device] if device.type == "cuda" else []
    with trained_online(device), torch.random.fork_rng(cuda):
        torch.manual_seed(SEED)
        adapted = deepcopy(model).to(device).train().requires_grad_()
        use_quick_convolutions(adapted)
        objective = Objective(adapted)
        decay = Optimisation().weight_decay
        optimiser = Adam(adapted.parameters(), settings.learning_rate, weight_decay=decay, fused=True)
        for step in range(settings.iterations):
            loss = objective(_batch(frames, step, settings.pairs, sampling).to(device)).loss
            if not math.isfinite(loss.item()):
                raise UserError(
                    f"amd-objectness: the loss of adaptation is {loss.item()} after {step} steps; lower --learning-rate"
                )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return adapted.eval().requires_grad_(False)


def _batch(frames: PairFrames, step: int, pairs: int, sampling: Sampling) -> Tensor:
    """RGB in 0..1, float [B, 2, 3, S, S]."""
    rng = np.random.default_rng((SEED, 3, step))
    numbers = range(step * pairs, (step + 1) * pairs)
    return torch.stack([crop_pair(frames.pair(number), sampling, rng) for number in numbers]).float() / 255


def adapted_weights(
    start: Weights, videos: Sequence[Video], name: str, settings: AdaptationSettings, network: SegmentNetwork
) -> Path:
    """Path of the network that was adapted to videos; it is trained now if its file does not exist yet.

    Args:
        start: weights that adaptation starts from.
        videos: one video, or those of a data set.
        name: of the video or the data set; also of its folder in `AdaptationSettings.models`.
        settings: of adaptation; `models` is not None.
        network: the network with the start weights.

    Returns:
        ``models/name/adapted-<origin>.safetensors``.

    Raises:
        UserError: as `adapt`.
        BadWeights: the file is damaged, or something else wrote it.
    """
    assert settings.models is not None
    sampling = sampling_for(network.shorter_side)
    made_from = [video.fingerprint() for video in videos]
    origin = fingerprint(network.model, replace(settings, models=None), sampling, made_from)
    path = kept_path(settings.models, name, "adapted", origin)
    if not is_kept(path, origin):
        model = adapt(network.model, videos, settings, sampling, network.device)
        notes = {**start.metadata, ORIGIN: origin, "shorter_side": str(network.shorter_side)}
        words = f"{start.description}, adapted to {name} in {settings.iterations} steps"
        save_weights(path, Weights(model.cpu().state_dict(), model.architecture, words, True, notes))
    return path


class AdaptingSegmenter(AMDSegmenter):
    """Trains on each video before segmenting it (``amd-objectness+adapt``); `reset` restores the start weights."""

    def __init__(
        self,
        network: SegmentNetwork,
        info: ModelInfo,
        settings: InferenceSettings | None = None,
        channel: int = RELEASED_CHANNEL,
        threshold: float = RELEASED_THRESHOLD,
        adaptation: AdaptationSettings | None = None,
    ) -> None:
        self._start = network
        self.adaptation = adaptation or AdaptationSettings()
        super().__init__(network, info, settings, channel, threshold)

    def reset(self) -> None:
        """Forget the video and what was learned from it."""
        super().reset()
        self.network, self._prepared = self._start, False

    def prepare(self, video: Video) -> None:
        """Train on the video, and choose the channel if it is ``auto``.

        Raises:
            UserError: a video of one frame, or the loss is not finite.
            BadVideo: a frame cannot be read.
        """
        self.reset()
        model = self._adapted(video)
        self.network = SegmentNetwork(model, self._start.shorter_side, self._start.device, self._start.dtype)
        self._prepared = True
        self._say_choice(video)

    def _adapted(self, video: Video) -> AMD:
        start = self._start
        if self.adaptation.models is None:
            return adapt(start.model, [video], self.adaptation, sampling_for(start.shorter_side), start.device)
        weights = Weights(start.model.state_dict(), start.model.architecture, self.info.weights)
        return read_weights(adapted_weights(weights, [video], video.name, self.adaptation, start)).network()

    def step(self, frame: Frame, prompt: ObjectMask | None = None, *, soft_masks: bool = False) -> Segmentation:
        """Segment the next frame of the prepared video; see `AMDSegmenter.step`.

        Raises:
            UserError: as there, or `prepare` was not called.
        """
        if not self._prepared:
            raise UserError(
                "amd-objectness+adapt learns from the whole video; call prepare(video) before the first step"
            )
        return super().step(frame, prompt, soft_masks=soft_masks)


def adapt_together(
    arguments: SegmentArguments, videos: Sequence[Video], settings: AdaptationSettings, inference: InferenceSettings
) -> Path:
    """Path of the network that was adapted to all videos of a data set; see `adapted_weights`.

    Raises:
        UserError: unusable weights, device or precision; as `adapt`.
    """
    segmenter = load(arguments.weights, arguments.device, arguments.precision, **changed_settings(inference))
    network = segmenter.network
    start = replace(load_weights(arguments.weights), state=network.model.state_dict())
    name = Path(arguments.source).resolve().name or "dataset"
    return adapted_weights(start, videos, name, settings, network)
