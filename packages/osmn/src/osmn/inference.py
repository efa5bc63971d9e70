"""One-shot segmentation with OSMN: modulate once an object, then follow it from mask to mask (specification, 11)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from osmn.guides import (
    BoolMask,
    Normalisation,
    crop_guide,
    dilated_guide,
    resize_frame,
    resize_mask,
    resize_object,
    spatial_guide,
    visual_guide,
)
from osmn.merging import THRESHOLD, merge_soft_masks
from osmn.networks import OSMN
from osmn.settings import MIN_SIDE, InferenceSettings, OnlineSettings
from osmn.snapshots import Snapshot, load_weights, parameter_count
from vos_shared.crf import refine_labels, require_densecrf
from vos_shared.errors import BadVideo, UserError
from vos_shared.masks import VOID, ids_of
from vos_shared.method import Frame, ModelInfo, ObjectMask, Segmentation, Segmenter
from vos_shared.options import settings_from
from vos_shared.results import fingerprint
from vos_shared.runtime.device import autocast, choose_device, choose_precision
from vos_shared.soft_masks import SoftMask
from vos_shared.steps import check_step, stack_soft_masks
from vos_shared.video import Video


@dataclass
class _Object:
    model: OSMN  # shared by all objects, or fine-tuned for this one
    gamma: Tensor | None  # [C]
    mask: BoolMask  # where the object was last, at the network's size


@dataclass
class _Video:
    frame_size: tuple[int, int]
    objects: dict[int, _Object] = field(default_factory=dict)
    frames: int = 0  # seen so far, the current one included


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
        if self.settings.aligned_size and model.architecture.base_model != "masktrack":
            raise UserError("osmn: only masktrack takes an aligned size")
        model.aligned_size = self.settings.aligned_size
        self.device = device or torch.device("cpu")
        self.dtype = dtype
        self.model = model.eval().to(self.device).to(memory_format=torch.channels_last)
        self.normalise = Normalisation(1.0 if self.settings.scale_value is None else self.settings.scale_value)
        self._info = info
        self._video: _Video | None = None
        self._source: Video | None = None

    @property
    def info(self) -> ModelInfo:
        """Parameters and origin of the weights."""
        return self._info

    def reset(self) -> None:
        """Forget the video and all its objects."""
        self._video = self._source = None

    def prepare(self, video: Video) -> None:
        """Learn the names of the video and its frames; sharper frames and fine-tuned networks are stored by name."""
        self._source = video

    @torch.inference_mode()
    def step(self, frame: Frame, prompt: ObjectMask | None = None, *, soft_masks: bool = False) -> Segmentation:
        """Segment the next frame; objects are known from the frame where they are prompted.

        Raises:
            BadVideo: the frame is no uint8 RGB, or its size differs from the first frame's.
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
        mask = merge_soft_masks(self._decided(probabilities, known), video.frame_size)
        if prompt is not None:  # What is given is given, whatever an older object claims.
            given = ~np.isin(prompt, [0, VOID, *known])
            mask[given] = prompt[given]
        return Segmentation(mask, stack_soft_masks(probabilities, video.frame_size) if soft_masks else None)

    def _open(self, frame: Frame, prompt: ObjectMask | None) -> _Video:
        size = check_step(frame, prompt, None if self._video is None else self._video.frame_size)
        if self._video is None:
            self._check_network_size(size)
            self._video = _Video(size)
        self._video.frames += 1
        return self._video

    def _check_network_size(self, frame_size: tuple[int, int]) -> None:
        """Refuse frames that the network cannot take.

        Raises:
            BadVideo: they are too small, or larger than masktrack's aligned size.
        """
        height, width = self.settings.network_size(frame_size)
        if min(height, width) < MIN_SIDE:
            raise BadVideo(f"osmn: frames of {width}x{height} are too small for the network; the least is {MIN_SIDE}")
        aligned = self.settings.aligned_size
        if aligned is not None and (height > aligned[0] or width > aligned[1]):
            raise BadVideo(
                f"osmn: frames of {width}x{height} do not fit into the aligned size {aligned[1]}x{aligned[0]}; "
                "give a larger --aligned-size, or a --size that fits"
            )

    def _adapted(self, frame: Frame, mask: BoolMask) -> OSMN:
        """The network for a new object: the same for all."""
        return self.model

    def _meet(self, frame: Frame, mask: BoolMask) -> _Object:
        """A new object: its visual modulation is computed here, once and for all."""
        settings = self.settings
        model = self._adapted(frame, mask)
        sharp = self._sharp(frame)
        inside = resize_object(mask, sharp.shape[:2])
        crop, label = crop_guide(sharp, inside, pad_ratio=settings.pad_ratio, keep_aspect=settings.keep_aspect)
        guide = visual_guide(crop, label, self.normalise, blank_background=settings.blank_background)
        with autocast(self.device, self.dtype):
            gamma = model.visual_modulation(torch.from_numpy(guide)[None].to(self.device))
        size = settings.network_size(mask.shape)
        return _Object(model, None if gamma is None else gamma[0], resize_object(mask, size))

    def _sharp(self, frame: Frame) -> Frame:
        """The current frame, from the folder with a higher resolution if there is one."""
        folder = self.settings.guide_frames
        if folder is None:
            return frame
        if self._source is None or self._video is None:
            raise UserError("osmn: guide frames are found by the names of the video's frames; call prepare first")
        if self._video.frames > len(self._source.frame_names):
            raise UserError(
                f"osmn: video {self._source.name} ends before frame {self._video.frames}; reset and prepare"
            )
        name = self._source.frame_names[self._video.frames - 1]
        files = [folder / self._source.name / f"{name}{suffix}" for suffix in (".jpg", ".png")]
        for path in files:
            if path.is_file():
                return Video.open(path)[0]
        raise BadVideo(f"osmn: no guide frame {files[0]} (or .png); --guide-frames holds <sequence>/<frame>.jpg")

    def _propagate(self, frame: Frame, known: list[int]) -> Iterable[SoftMask]:
        """SoftMask of the known objects at the frame's size; moves the objects on."""
        if not known or self._video is None:
            return []
        resized = resize_frame(frame, self.settings.network_size(self._video.frame_size))
        image = torch.from_numpy(self.normalise(resized))[None].to(self.device, memory_format=torch.channels_last)
        objects = [self._video.objects[key] for key in known]
        out = [probability for batch in self._batches(objects) for probability in self._forward(image, batch)]
        for item, probability in zip(objects, out, strict=True):
            item.mask = self._binarise(resized, probability)
        return [_to_size(probability, self._video.frame_size) for probability in out]

    def _batches(self, objects: list[_Object]) -> Iterator[list[_Object]]:
        """Neighbouring objects with one network, `object_batch` of them at most."""
        for _, group in groupby(objects, key=lambda item: id(item.model)):
            members = list(group)
            for start in range(0, len(members), self.settings.object_batch):
                yield members[start : start + self.settings.object_batch]

    def _forward(self, image: Tensor, objects: list[_Object]) -> list[SoftMask]:
        model = objects[0].model
        guide = dilated_guide if model.architecture.base_model == "masktrack" else spatial_guide
        spatial = torch.from_numpy(np.stack([guide(item.mask) for item in objects]))[:, None].to(self.device)
        gammas = [item.gamma for item in objects if item.gamma is not None]
        with autocast(self.device, self.dtype):
            logits = model(image, spatial, torch.stack(gammas) if gammas else None)
        return list(logits[:, 0].float().sigmoid().cpu().numpy())

    def _decided(self, probabilities: dict[int, SoftMask], known: list[int]) -> dict[int, SoftMask]:
        """The probabilities, those of `known` objects on the side of the threshold that the CRF chose if there is one.

        SoftMasks that are asked for stay as the network gave them, as in the original.
        """
        if not self.settings.crf or self._video is None:
            return probabilities
        above = np.nextafter(THRESHOLD, np.float32(1))
        decided = dict(probabilities)
        for key in known:
            score, refined = decided[key], resize_mask(self._video.objects[key].mask, self._video.frame_size)
            decided[key] = np.where(refined, np.maximum(score, above), np.minimum(score, THRESHOLD))
        return decided

    def _binarise(self, frame: Frame, probability: SoftMask) -> BoolMask:
        mask: BoolMask = probability > THRESHOLD
        if not self.settings.crf:
            return mask
        return refine_labels(frame, mask.astype(np.uint8)) > 0


def load(
    weights: str | Path | None = None,
    device: str = "auto",
    precision: str = "fp32",
    *,
    online: bool = False,
    **options: Any,
) -> OSMNSegmenter:
    """Build the segmenter.

    Args:
        weights: a file of ours, the prefix of an official TensorFlow checkpoint, the name of a published one; None for
            the weights that come with the package.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        precision: ``fp32``, ``bf16`` or ``fp16``; fine-tuning is always fp32.
        online: fine-tune the network on each object's first frame.
        options: fields of `InferenceSettings`, with `online` also of `OnlineSettings`.

    Raises:
        UserError: unusable weights, device, precision or option.
    """
    target = choose_device(device)
    dtype = choose_precision(precision, target)
    tuning = {name: options.pop(name) for name in sorted(_names(OnlineSettings) & options.keys())}
    settings = settings_from(InferenceSettings, options, "osmn")
    if tuning and not online:
        raise UserError(f"osmn: {', '.join(tuning)} belong to fine-tuning; take variant osmn+online")
    snapshot = load_weights(weights)
    settings = _fitted(settings, snapshot)
    if settings.crf:
        require_densecrf()
    if settings.guide_frames is not None and not settings.guide_frames.is_dir():
        raise UserError(f"osmn: --guide-frames {settings.guide_frames} is not a folder")
    description = snapshot.description + _guides_in_words(settings.guide_frames)
    info = ModelInfo(parameter_count(snapshot.model), description, snapshot.trained)
    if not online:
        return OSMNSegmenter(snapshot.model, info, settings, target, dtype)
    from osmn.online import OnlineSegmenter

    online_settings = OnlineSettings(**tuning)
    if online_settings.models is not None and online_settings.models.is_file():
        raise UserError(f"osmn: --models {online_settings.models} is a file; give a folder")
    return OnlineSegmenter(snapshot.model, info, settings, target, dtype, online_settings)


def _guides_in_words(folder: Path | None) -> str:
    """What masks depend on besides: other frames in the folder of the guides make results stale."""
    if folder is None:
        return ""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    state = [(str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return f", guide frames {fingerprint(state)}"


def _names(settings: type) -> set[str]:
    return {field.name for field in fields(settings)}


def _fitted(settings: InferenceSettings, snapshot: Snapshot) -> InferenceSettings:
    """The settings; where they say nothing, what the weights ask for."""
    if settings.scale_value is None:
        settings = replace(settings, scale_value=snapshot.scale_value)
    if settings.size is None and settings.shorter_side is None:
        settings = replace(settings, shorter_side=snapshot.shorter_side)
    return settings


def _to_size(probability: SoftMask, size: tuple[int, int]) -> SoftMask:
    if probability.shape == size:
        return probability
    tensor = torch.from_numpy(probability)[None, None]
    resized = torch.nn.functional.interpolate(tensor, size, mode="bilinear", align_corners=False)
    return np.asarray(resized[0, 0].numpy())
