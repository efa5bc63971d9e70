"""Inference: modulate the network once per object, then segment frame after frame (specification, section 11)."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from osmn.checkpoints import Snapshot, load_weights
from osmn.frame_input import dilated_guides, normalise, resize_image, spatial_guides
from osmn.guides import BoolMask, Normalisation, crop_guide, resize_mask, resize_object, visual_guide
from osmn.merging import THRESHOLD, merge_soft_masks
from osmn.networks import OSMN
from osmn.settings import MIN_SIDE, InferenceSettings, OnlineSettings
from vos_shared.crf import refine_labels, require_densecrf
from vos_shared.errors import BadVideo, UserError
from vos_shared.masks import VOID, ids_of
from vos_shared.method import Frame, ModelInfo, ObjectMask, Segmentation, Segmenter
from vos_shared.options import settings_from
from vos_shared.results import fingerprint
from vos_shared.runtime.device import autocast, choose_device, choose_precision
from vos_shared.steps import check_step, stack_soft_masks
from vos_shared.video import Video


@dataclass
class _Object:
    model: OSMN  # shared by all objects, or fine-tuned for this one
    gamma: Tensor | None  # [C]
    mask: Tensor  # latest mask, bool [h, w] at the network's size, on the device


@dataclass
class _Video:
    frame_size: tuple[int, int]
    objects: dict[int, _Object] = field(default_factory=dict)
    frames: int = 0  # number of frames so far, the current one included


class OSMNSegmenter(Segmenter):
    """Follows any number of objects; each has its own modulation, and unmodulated layers run once for all."""

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
        self.device = device or torch.device("cpu")
        self.dtype = dtype
        # A copy, so that the caller's model is not changed.
        self.model = copy.deepcopy(model).eval().to(self.device).to(memory_format=torch.channels_last)
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
        """Take the names of the video and its frames; guide frames and fine-tuned networks are found by name."""
        self._source = video

    @torch.inference_mode()
    def step(self, frame: Frame, prompt: ObjectMask | None = None, *, soft_masks: bool = False) -> Segmentation:
        """Segment the next frame; an object is followed from the frame that prompts it.

        Raises:
            BadVideo: the frame is not uint8 RGB, or its size differs from the first frame's.
            BadMask: the prompt's size differs from the frame's.
        """
        video = self._open(frame, prompt)
        known = list(video.objects)
        soft = dict(zip(known, self._propagate(frame, known), strict=True))
        for new in [] if prompt is None else ids_of(prompt):
            if new not in video.objects:
                mask = np.asarray(prompt == new)
                video.objects[new] = self._meet(frame, mask)
                soft[new] = torch.from_numpy(mask).to(self.device).float()
        decided = self._decided(soft, known)
        ids = np.zeros(video.frame_size, np.uint8)
        if decided:
            ids = merge_soft_masks(torch.stack(list(decided.values())), list(decided)).cpu().numpy()
        if prompt is not None:  # Prompted pixels win over propagated ones.
            given = ~np.isin(prompt, [0, VOID, *known])
            ids[given] = prompt[given]
        if not soft_masks:
            return Segmentation(ids)
        return Segmentation(ids, stack_soft_masks({at: mask.cpu().numpy() for at, mask in soft.items()}, ids.shape))

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
        """The network for a new object; here the same for all."""
        return self.model

    def _meet(self, frame: Frame, mask: BoolMask) -> _Object:
        """Compute the visual modulation of a new object, once."""
        settings = self.settings
        model = self._adapted(frame, mask)
        sharp = self._sharp(frame)
        inside = resize_object(mask, sharp.shape[:2])
        # By Pillow on the CPU, once per object: resizing on a GPU changes 15 % of the pixels by one level, and so soft
        # masks by 1e-3; the tolerance against the official program is 1e-4.
        crop, label = crop_guide(sharp, inside, pad_ratio=settings.pad_ratio, keep_aspect=settings.keep_aspect)
        guide = visual_guide(crop, label, self.normalise, blank_background=settings.blank_background)
        with autocast(self.device, self.dtype):
            gamma = model.visual_modulation(torch.from_numpy(guide)[None].to(self.device))
        size = settings.network_size(mask.shape)
        at = torch.from_numpy(resize_object(mask, size)).to(self.device)
        return _Object(model, None if gamma is None else gamma[0], at)

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

    def _propagate(self, frame: Frame, known: list[int]) -> list[Tensor]:
        """Soft masks of the known objects, float32 of the frame's size on the device; updates the objects' masks."""
        if not known or self._video is None:
            return []
        pixels = torch.from_numpy(np.require(frame, requirements=["C", "W"])).to(self.device).permute(2, 0, 1)
        resized = resize_image(pixels, self.settings.network_size(self._video.frame_size))
        image = normalise(resized, self.normalise.scale)
        objects = [self._video.objects[object_id] for object_id in known]
        out = torch.cat([self._forward(image, batch) for batch in self._batches(objects)])  # [K, h, w]
        for item, mask in zip(objects, out > THRESHOLD, strict=True):
            item.mask = self._refined(resized, mask) if self.settings.crf else mask
        if out.shape[1:] != self._video.frame_size:
            out = F.interpolate(out[None], self._video.frame_size, mode="bilinear", align_corners=False)[0]
        return list(out)

    def _batches(self, objects: list[_Object]) -> Iterator[list[_Object]]:
        """Consecutive objects that share a network, at most `object_batch` at a time."""
        for _, group in groupby(objects, key=lambda item: id(item.model)):
            members = list(group)
            for start in range(0, len(members), self.settings.object_batch):
                yield members[start : start + self.settings.object_batch]

    def _forward(self, image: Tensor, objects: list[_Object]) -> Tensor:
        """Soft masks of some objects, float32 [K, h, w]."""
        model = objects[0].model
        masks = torch.stack([item.mask for item in objects])
        spatial = dilated_guides(masks) if model.architecture.base_model == "masktrack" else spatial_guides(masks)
        gammas = [item.gamma for item in objects if item.gamma is not None]
        with autocast(self.device, self.dtype):
            logits = model(image, spatial, torch.stack(gammas) if gammas else None, self.settings.aligned_size)
        soft: Tensor = logits[:, 0].float().sigmoid()
        return soft

    def _decided(self, soft: dict[int, Tensor], known: list[int]) -> dict[int, Tensor]:
        """The soft masks to merge: with a CRF, those of `known` objects are clamped to the side that the CRF chose.

        The soft masks that `step` returns stay as the network gave them, as in the original.
        """
        if not self.settings.crf or self._video is None:
            return soft
        above = float(np.nextafter(np.float32(THRESHOLD), np.float32(1)))
        decided = dict(soft)
        for object_id in known:
            mask = self._video.objects[object_id].mask.cpu().numpy()
            refined = torch.from_numpy(resize_mask(mask, self._video.frame_size)).to(self.device)
            soft_mask = soft[object_id]
            inside, outside = soft_mask.clamp(min=above), soft_mask.clamp(max=THRESHOLD)
            decided[object_id] = torch.where(refined, inside, outside)
        return decided

    def _refined(self, pixels: Tensor, mask: Tensor) -> Tensor:
        """The mask after the CRF, which works on the CPU; pixels are uint8 [3, h, w], masks bool [h, w]."""
        frame = np.ascontiguousarray(pixels.permute(1, 2, 0).cpu().numpy())
        refined = refine_labels(frame, mask.cpu().numpy().astype(np.uint8)) > 0
        return torch.from_numpy(refined).to(self.device)


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
    info = ModelInfo(sum(value.numel() for value in snapshot.model.parameters()), description, snapshot.trained)
    if not online:
        return OSMNSegmenter(snapshot.model, info, settings, target, dtype)
    from osmn.online import OnlineSegmenter

    online_settings = OnlineSettings(**tuning)
    if online_settings.models is not None and online_settings.models.is_file():
        raise UserError(f"osmn: --models {online_settings.models} is a file; give a folder")
    return OnlineSegmenter(snapshot.model, info, settings, target, dtype, online_settings)


def _guides_in_words(folder: Path | None) -> str:
    """A hash of the guide frames, since results become stale when these change."""
    if folder is None:
        return ""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    state = [(str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return f", guide frames {fingerprint(state)}"


def _names(settings: type) -> set[str]:
    return {field.name for field in fields(settings)}


def _fitted(settings: InferenceSettings, snapshot: Snapshot) -> InferenceSettings:
    """Fill in the settings that are None from what the weights record."""
    if settings.scale_value is None:
        settings = replace(settings, scale_value=snapshot.scale_value)
    if settings.size is None and settings.shorter_side is None:
        settings = replace(settings, shorter_side=snapshot.shorter_side)
    return settings
