"""Segmentation of videos by label propagation over dense features."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dense_ulearn.checkpoints import load_weights
from dense_ulearn.networks import DenseNetwork
from dense_ulearn.propagation import LabelPropagation
from dense_ulearn.settings import InferenceSettings, Layer
from dense_ulearn.weights import UNTRAINED
from vos_shared.layers.imagenet import normalise_images
from vos_shared.masks import ids_of, one_hot
from vos_shared.method import Frame, ModelInfo, ObjectMask, Segmentation, Segmenter
from vos_shared.options import settings_from
from vos_shared.runtime.device import autocast, choose_device, choose_precision
from vos_shared.steps import check_step, stack_soft_masks

FeatureFunction = Callable[[Frame], Tensor]
"""Maps a frame, uint8 RGB [H, W, 3], to unit-length features, float [h, w, D], on any device."""


class NetworkFeatures:
    """The feature function of the method: its network on one frame.

    Args:
        network: copied, so the caller's stays unchanged.
        layer: which of its outputs.
        input_size: as in `InferenceSettings`.
        device: device of the network.
        precision: dtype of the convolutions; the features are float32.
    """

    def __init__(
        self,
        network: DenseNetwork,
        layer: Layer = "res4",
        input_size: int = -1,
        device: torch.device | None = None,
        precision: torch.dtype = torch.float32,
    ) -> None:
        self.device = device or torch.device("cpu")
        # Not folding batch norms, not channels last: both save next to nothing and change features by 5e-7, which is
        # enough to change the order of nearly equal similarities, and so pixels of the mask.
        self.network = deepcopy(network).eval().to(self.device)
        self.layer, self.input_size, self.precision = layer, input_size, precision

    @torch.inference_mode()
    def __call__(self, frame: Frame) -> Tensor:
        """Frame, uint8 RGB [H, W, 3], to unit-length features, float32 [h, w, C]."""
        pixels = torch.from_numpy(np.require(frame, requirements=["C", "W"])).to(self.device)
        images = normalise_images(pixels.permute(2, 0, 1)[None].float() / 255)  # [1, 3, H, W]
        if self.input_size > 0:
            images = F.interpolate(images, self._resized(frame), mode="bilinear", align_corners=True)
        with autocast(self.device, self.precision):
            features = self.network.layer(images, self.layer, norm=False)
        return F.normalize(features[0].float(), dim=0).permute(1, 2, 0)

    def _resized(self, frame: Frame) -> tuple[int, int]:
        height, width = frame.shape[:2]
        shorter = min(height, width)
        return height * self.input_size // shorter, width * self.input_size // shorter


class DenseSegmenter(Segmenter):
    """Follows objects through a video from the frames that prompt them.

    Args:
        features: any feature function; all frames of a video must have features of one size.
        info: parameters and origin of the weights, for reports.
        settings: of the propagation and the output.
        storage: dtype in which features of earlier frames are kept.

    Example:
        segmenter = dense_ulearn.inference.load()
        first = segmenter.step(frames[0], mask)
        masks = [first.mask, *(segmenter.step(frame).mask for frame in frames[1:])]
    """

    def __init__(
        self,
        features: FeatureFunction,
        info: ModelInfo,
        settings: InferenceSettings | None = None,
        storage: torch.dtype = torch.float32,
    ) -> None:
        self.features = features
        self.settings = settings or InferenceSettings()
        self._info, self._storage = info, storage
        self.reset()

    @property
    def info(self) -> ModelInfo:
        """Parameters and origin of the weights."""
        return self._info

    def reset(self) -> None:
        """Forget the video."""
        self._propagation = LabelPropagation(self.settings, self._storage)
        self._size: tuple[int, int] | None = None

    @torch.inference_mode()
    def step(self, frame: Frame, prompt: ObjectMask | None = None, *, soft_masks: bool = False) -> Segmentation:
        """Segment the next frame; see `vos_shared.method.Segmenter.step`.

        The frame of the first prompt also prompts the background.
        """
        self._size = check_step(frame, prompt, self._size)
        new = [] if prompt is None else self._new_ids(prompt)
        if self._propagation.idle and not new:
            self._propagation.skip()
            return self._segmentation(np.zeros(frame.shape[:2], np.uint8), None, soft_masks)
        features = self.features(frame)
        given = None if prompt is None or not new else torch.from_numpy(one_hot(prompt, new)).to(features.device)
        labels = self._propagation.step(features, given, new)  # [h, w, M]
        full = F.interpolate(labels.permute(2, 0, 1)[None], frame.shape[:2], mode="bilinear", align_corners=True)[
            0
        ]  # [M, H, W]
        if given is not None and self.settings.exact_prompt:
            channels = [self._propagation.ids.index(object_id) for object_id in new]
            full[channels] = torch.where(given > 0, torch.inf, -torch.inf)
        ids = np.array(self._propagation.ids, np.uint8)
        return self._segmentation(ids[full.argmax(0).cpu().numpy()], full, soft_masks)

    def _new_ids(self, prompt: ObjectMask) -> list[int]:
        """Ids of the prompt that are new; with the first objects also 0 for the background, if it has pixels."""
        objects = [object_id for object_id in ids_of(prompt) if object_id not in self._propagation.ids]
        return [0, *objects] if objects and self._propagation.idle and (prompt == 0).any() else objects

    def _segmentation(self, mask: ObjectMask, soft: Tensor | None, wanted: bool) -> Segmentation:
        if not wanted:
            return Segmentation(mask)
        found = {}
        if soft is not None:
            found = {
                object_id: soft[channel].clamp(0, 1).cpu().numpy()
                for channel, object_id in enumerate(self._propagation.ids)
                if object_id
            }
        return Segmentation(mask, stack_soft_masks(found, mask.shape))


STORAGE: Final = {"cuda": torch.float16}
"""dtype of earlier frames' features by device, else float32. Half precision needs 127 MiB for 20 frames of 480p; masks
can differ in a few border pixels."""


def load(
    weights: str | Path | None = None,
    device: str = "auto",
    precision: str = "fp32",
    *,
    baseline: bool = False,
    **options: Any,
) -> DenseSegmenter:
    """Build the segmenter.

    Args:
        weights: a file of ours, an official snapshot, the name of a published one, ``untrained``; None for the weights
            that come with the package.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        precision: ``fp32``, ``bf16`` or ``fp16``, of the convolutions.
        baseline: ignore `weights` and use the untrained network, which every training must beat.
        options: fields of `InferenceSettings`.

    Raises:
        UserError: unusable weights, device, precision or option.
    """
    settings = settings_from(InferenceSettings, options, "dense-ulearn")
    target = choose_device(device)
    dtype = choose_precision(precision, target)
    loaded = load_weights(UNTRAINED if baseline else weights)
    network = loaded.network()
    info = ModelInfo(sum(value.numel() for value in network.parameters()), loaded.description, loaded.trained)
    features = NetworkFeatures(network, settings.layer, settings.input_size, target, dtype)
    return DenseSegmenter(features, info, settings, STORAGE.get(target.type, torch.float32))
