"""Online fine-tuning: before an object is followed, the network is trained on its first frame (specification, 10)."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace

import numpy as np
import torch

from osmn.checkpoints import read_weights, save_weights
from osmn.data import Example, TrainingSamples
from osmn.guides import BoolMask
from osmn.inference import OSMNSegmenter
from osmn.networks import OSMN
from osmn.presets import GuideAugmentation, SampleSettings, TrainingSettings, single_valued
from osmn.settings import InferenceSettings, OnlineSettings
from osmn.training import Objective, set_training_mode
from vos_shared.errors import UserError
from vos_shared.kept import ORIGIN, fingerprint, is_kept, kept_path
from vos_shared.method import Frame, ModelInfo
from vos_shared.training.online import trained_online
from vos_shared.training.optimisers import TensorFlowAdam


@dataclass(frozen=True)
class FirstFrame:
    """The single example of a new object; a source for `TrainingSamples`."""

    frame: Frame
    mask: BoolMask

    def __len__(self) -> int:
        """Always 1."""
        return 1

    def example(self, index: int, rng: np.random.Generator) -> Example:
        """The frame; both guides come from it as well."""
        return Example(self.frame, self.mask, self.frame, self.mask, self.mask)


def fine_tune(
    model: OSMN,
    source: FirstFrame,
    samples: SampleSettings,
    online: OnlineSettings,
    seed: int = 1234,
) -> OSMN:
    """Fine-tune a copy of the model on one object.

    Args:
        model: is not changed.
        source: the object's first frame.
        samples: how it becomes network input.
        online: steps and rate.
        seed: of scales and augmentation.

    Returns:
        In evaluation mode, on the model's device.

    Raises:
        UserError: the loss is not finite.
    """
    device = next(model.parameters()).device
    cuda = [device] if device.type == "cuda" else []
    with trained_online(device), torch.random.fork_rng(cuda):
        torch.manual_seed(seed)  # Dropout draws as well: no object's network may depend on earlier ones.
        tuned = copy.deepcopy(model)
        set_training_mode(tuned, _mode(online))
        parameters = [parameter for parameter in tuned.parameters() if parameter.requires_grad]
        optimiser = TensorFlowAdam(parameters, lr=online.learning_rate)
        objective = Objective(tuned)
        stream = TrainingSamples(source, samples, batch=1, seed=seed)
        for step in range(online.iterations):
            sample = {name: value[None].to(device) for name, value in stream[step, 0].items()}
            loss = sum(objective(sample))
            _require_finite(loss.item(), step)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        tuned.eval().requires_grad_(False)
        _require_finite(sum(objective(sample)).item(), online.iterations)  # With the final weights.
        return tuned


def _mode(online: OnlineSettings) -> TrainingSettings:
    # One frame is too little for the batch statistics of lite's trunks; the original never fine-tunes lite.
    return TrainingSettings(batch_size=1, fix_bn=online.fix_bn, fix_trunk_bn=True)


def _require_finite(loss: float, steps: int) -> None:
    if not math.isfinite(loss):
        raise UserError(f"osmn: the loss of fine-tuning is {loss} after {steps} steps; lower --learning-rate")


class OnlineSegmenter(OSMNSegmenter):
    """Fine-tunes a separate network for every object (``osmn+online``)."""

    def __init__(
        self,
        model: OSMN,
        info: ModelInfo,
        settings: InferenceSettings | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
        online: OnlineSettings | None = None,
    ) -> None:
        super().__init__(model, info, settings, device, dtype)
        self.online = online or OnlineSettings()
        # Kept networks depend on the start weights and on the settings, but not on where they are kept.
        self._start = fingerprint(model, replace(self.online, models=None)) if self.online.models else ""

    def _adapted(self, frame: Frame, mask: BoolMask) -> OSMN:
        if self.online.models is None:
            return self._tuned(frame, mask)
        if self._source is None or self._video is None:
            raise UserError("osmn: fine-tuned networks are kept under the video's name; call prepare first")
        origin = fingerprint(self._start, frame.tobytes(), mask.tobytes(), self._samples(mask))
        number = len(self._video.objects) + 1
        path = kept_path(self.online.models, self._source.name, str(number), origin)
        if is_kept(path, origin):
            return read_weights(path).model.to(self.device).to(memory_format=torch.channels_last)
        tuned = self._tuned(frame, mask)
        notes = {"description": f"fine-tuned on the first frame of {self._source.name}", ORIGIN: origin}
        save_weights(path, tuned, self.normalise.scale, notes)
        return tuned

    def _tuned(self, frame: Frame, mask: BoolMask) -> OSMN:
        return fine_tune(self.model, FirstFrame(frame, mask), self._samples(mask), self.online)

    def _samples(self, mask: BoolMask) -> SampleSettings:
        """How the first frame becomes network input.

        Raises:
            UserError: at the smallest scale there is a single cell left, from which batch norm can take no statistics.
        """
        size = self.settings.network_size(mask.shape)
        samples = SampleSettings(
            size,
            self.online.scales,
            self.normalise.scale,
            mask_guide=self.model.architecture.base_model == "masktrack",
            augmentation=GuideAugmentation(
                keep_aspect=self.settings.keep_aspect, blank_background=self.settings.blank_background
            ),
        )
        if single_valued(self.model.architecture, samples, _mode(self.online)):
            raise UserError(
                f"osmn: frames of {size[1]}x{size[0]} are too small to fine-tune on at scale "
                f"{min(self.online.scales)}; give larger --scales, or --fix-bn"
            )
        return samples
