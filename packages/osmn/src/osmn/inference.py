"""One-shot segmentation with OSMN: modulate once an object, then follow it from mask to mask (specification, 11)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from osmn.guides import (
    BoolMask,
    Normalisation,
    crop_guide,
    dilated_guide,
    resize_frame,
    resize_mask,
    spatial_guide,
    visual_guide,
)
from osmn.networks import OSMN
from vos_shared.errors import BadMask, BadVideo
from vos_shared.masks import ids_of
from vos_shared.method import Frame, ModelInfo, ObjectMask, Scores, Segmentation, Segmenter
from vos_shared.runtime.device import autocast

Probabilities = npt.NDArray[np.float32]


@dataclass(frozen=True)
class InferenceSettings:
    """How a video is segmented; the defaults follow the paper and its code.

    Attributes:
        size: (height, width) of the network's input; None is the size of the frames.
        scale_value: factor of the normalised pixels, as in training.
        pad_ratio: margin of the visual guide, as a part of the object's box.
        keep_aspect: fit the visual guide into its square in place of stretching it.
        crf: refine each mask with a dense CRF before it guides the next frame (extra ``crf``).
        object_batch: objects that go through the network at once.
    """

    size: tuple[int, int] | None = None
    scale_value: float = 1.0
    pad_ratio: float = 0.03
    keep_aspect: bool = False
    crf: bool = False
    object_batch: int = 8


@dataclass
class _Object:
    gamma: Tensor | None  # [C]
    mask: BoolMask  # where the object was last, at the network's size


@dataclass
class _Video:
    frame_size: tuple[int, int]
    objects: dict[int, _Object] = field(default_factory=dict)


class OSMNSegmenter(Segmenter):
    """Follows any number of objects; each is modulated on its own, all share the unmodulated layers."""

    def __init__(
        self,
        model: OSMN,
        info: ModelInfo,
        settings: InferenceSettings | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.settings = settings or InferenceSettings()
        self.device = device or torch.device("cpu")
        self.dtype = dtype
        self.model = model.eval().to(self.device).to(memory_format=torch.channels_last)
        self.normalise = Normalisation(self.settings.scale_value)
        self._info = info
        self._video: _Video | None = None

    @property
    def info(self) -> ModelInfo:
        """Parameters and origin of the weights."""
        return self._info

    def reset(self) -> None:
        """Forget all objects."""
        self._video = None

    @torch.inference_mode()
    def step(self, frame: Frame, prompt: ObjectMask | None = None, *, scores: bool = False) -> Segmentation:
        """Segment the next frame; objects are known from the frame where they are prompted.

        Raises:
            BadVideo: the frame's size differs from the first frame's.
            BadMask: the prompt's size differs from the frame's.
        """
        video = self._open(frame, prompt)
        known = list(video.objects)
        probabilities = dict(zip(known, self._propagate(frame, known), strict=True))
        for new in [] if prompt is None else ids_of(prompt):
            if new not in video.objects:
                mask = np.asarray(prompt == new)
                video.objects[new] = self._meet(frame, mask)
                probabilities[new] = mask.astype(np.float32)
        return _merge(probabilities, video.frame_size, scores=scores)

    def _open(self, frame: Frame, prompt: ObjectMask | None) -> _Video:
        size = frame.shape[:2]
        if self._video is None:
            self._video = _Video(size)
        if size != self._video.frame_size:
            raise BadVideo(
                f"osmn: a frame is {size[1]}x{size[0]}, the first was {_wh(self._video.frame_size)}; reset first"
            )
        if prompt is not None and prompt.shape != size:
            raise BadMask(f"osmn: the prompt is {_wh(prompt.shape)}, the frame {_wh(size)}; they must be equal")
        return self._video

    def _network_size(self, frame: Frame) -> tuple[int, int]:
        return self.settings.size or frame.shape[:2]

    def _meet(self, frame: Frame, mask: BoolMask) -> _Object:
        """A new object: its visual modulation is computed here, once and for all."""
        settings = self.settings
        crop, label = crop_guide(frame, mask, pad_ratio=settings.pad_ratio, keep_aspect=settings.keep_aspect)
        guide = torch.from_numpy(visual_guide(crop, label, self.normalise))[None]
        with autocast(self.device, self.dtype):
            gamma = self.model.visual_modulation(guide.to(self.device))
        return _Object(None if gamma is None else gamma[0], resize_mask(mask, self._network_size(frame)))

    def _propagate(self, frame: Frame, known: list[int]) -> Iterable[Probabilities]:
        """Probabilities of the known objects at the frame's size; moves the objects on."""
        if not known or self._video is None:
            return []
        resized = resize_frame(frame, self._network_size(frame))
        image = torch.from_numpy(self.normalise(resized))[None].to(self.device, memory_format=torch.channels_last)
        out: list[Probabilities] = []
        for start in range(0, len(known), self.settings.object_batch):
            objects = [self._video.objects[key] for key in known[start : start + self.settings.object_batch]]
            out.extend(self._forward(image, objects))
        for key, probability in zip(known, out, strict=True):
            self._video.objects[key].mask = self._binarise(resized, probability)
        return [_to_size(probability, self._video.frame_size) for probability in out]

    def _forward(self, image: Tensor, objects: list[_Object]) -> list[Probabilities]:
        guide = dilated_guide if self.model.architecture.base_model == "masktrack" else spatial_guide
        spatial = torch.from_numpy(np.stack([guide(item.mask) for item in objects]))[:, None].to(self.device)
        gammas = [item.gamma for item in objects if item.gamma is not None]
        with autocast(self.device, self.dtype):
            logits = self.model(image, spatial, torch.stack(gammas) if gammas else None)
        return list(logits[:, 0].float().sigmoid().cpu().numpy())

    def _binarise(self, frame: Frame, probability: Probabilities) -> BoolMask:
        mask: BoolMask = probability > 0.5
        if not self.settings.crf:
            return mask
        from vos_shared.crf import refine_labels

        return refine_labels(frame, mask.astype(np.uint8)) > 0


def _merge(probabilities: dict[int, Probabilities], size: tuple[int, int], *, scores: bool) -> Segmentation:
    """Argmax over 0.5 for background and every object's probability; ties go to the lower id, background first."""
    mask = np.zeros(size, np.uint8)
    best = np.full(size, np.float32(0.5))
    for key in sorted(probabilities):
        wins = probabilities[key] > best
        mask[wins] = key
        best = np.maximum(best, probabilities[key])
    return Segmentation(mask, _stack_scores(probabilities, size) if scores else None)


def _stack_scores(probabilities: dict[int, Probabilities], size: tuple[int, int]) -> Scores:
    stacked = np.zeros((max(probabilities, default=0), *size), np.float32)
    for key, probability in probabilities.items():
        stacked[key - 1] = probability
    return stacked


def _to_size(probability: Probabilities, size: tuple[int, int]) -> Probabilities:
    if probability.shape == size:
        return probability
    tensor = torch.from_numpy(probability)[None, None]
    resized = torch.nn.functional.interpolate(tensor, size, mode="bilinear", align_corners=False)
    return np.asarray(resized[0, 0].numpy())


def _wh(size: tuple[int, ...]) -> str:
    return f"{size[1]}x{size[0]}"
