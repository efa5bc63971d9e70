"""Segmentation of videos: foreground, object maps, spatial propagation, connected-region filter."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spn_instances.checkpoints import Snapshot, load_weights, parameter_count
from spn_instances.craf import DemoFilter, PaperFilter
from spn_instances.given_foreground import GivenForeground
from spn_instances.images import soft_to_grey
from spn_instances.intermediate import IntermediateMaps
from spn_instances.learners import Learner, OnlineLearner
from spn_instances.networks import RefinementNet, ResNetF
from spn_instances.settings import InferenceSettings, OnlineSettings
from spn_instances.stages import (
    THRESHOLD,
    Grey,
    Soft,
    foreground_maps,
    labelled,
    network_size,
    refined,
    resized,
    resized_ids,
)
from spn_instances.territory import object_maps
from spn_instances.weights import REFINEMENT, WEIGHTS
from vos_shared import results
from vos_shared.errors import UserError
from vos_shared.masks import VOID, ids_of
from vos_shared.method import Frame, ModelInfo, ObjectMask, Segmentation, Segmenter
from vos_shared.options import settings_from
from vos_shared.provenance import weights_digest
from vos_shared.runtime.device import autocast, choose_device, choose_precision
from vos_shared.steps import check_step, stack_soft_masks
from vos_shared.training.run import LAST
from vos_shared.video import Video


@dataclass
class _Video:
    size: tuple[int, int]
    frames: int = 0  # seen so far, the current one included
    ids: list[int] = field(default_factory=list)  # object ids, ascending
    previous: ObjectMask | None = None  # ids of the previous frame
    last: ObjectMask | None = None  # the latest place of each object, for objects that vanish


class SPNSegmenter(Segmenter):
    """Runs the stages frame by frame.

    Args:
        learner: holds the networks of the foreground and of the objects.
        refinement: for spatial propagation; None leaves this stage out.
        info: parameters and origin of the weights, for reports.
        settings: of inference; None in a field that weights decide stands for the released value.
        dtype: of the convolutions.
    """

    def __init__(
        self,
        learner: Learner,
        refinement: RefinementNet | None,
        info: ModelInfo,
        settings: InferenceSettings,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.learner, self.settings, self.dtype = learner, settings, dtype
        self.device = learner.device
        self.refinement = None if refinement is None else refinement.eval().to(self.device)
        rule: DemoFilter | PaperFilter = PaperFilter() if settings.craf_rule == "paper" else DemoFilter()
        self._filter = rule if settings.craf else None
        self._info = info
        self._video: _Video | None = None
        self._source: Video | None = None
        self._maps = IntermediateMaps(settings.intermediate)
        masks = settings.foreground_masks
        self._given = None if masks is None else GivenForeground(masks)

    @property
    def info(self) -> ModelInfo:
        """Parameters and origin of the weights."""
        return self._info

    def reset(self) -> None:
        """Forget the video, its objects and their networks."""
        self._video = self._source = None
        self.learner.reset(None)

    def prepare(self, video: Video) -> None:
        """Take the names of the video and of its frames, by which networks, foreground masks and maps are stored.

        Raises:
            UserError: a frame has no mask in `InferenceSettings.foreground_masks`.
        """
        self._source = video
        if self._given is not None:
            self._given.check(video)
        self.learner.reset(video.name)

    @torch.inference_mode()
    def step(self, frame: Frame, prompt: ObjectMask | None = None, *, soft_masks: bool = False) -> Segmentation:
        """Segment the next frame; an object is followed from the frame on that prompts it.

        Raises:
            BadVideo: the frame is not uint8 RGB, or its size differs from the first frame's.
            BadMask: the prompt's size differs from the frame's.
            UserError: fine-tuning diverged; a trained network or a foreground mask is missing; files are found by name
                and `prepare` was not called.
        """
        size = check_step(frame, prompt, None if self._video is None else self._video.size)
        video = self._video = self._video or _Video(size)
        video.frames += 1
        ids = np.zeros(size, np.uint8)
        soft: dict[int, Soft] = {}
        if video.ids:
            with autocast(self.device, self.dtype):
                ids, maps = self._propagate(frame, video)
            soft = {at: row.astype(np.float32) / 255 for at, row in zip(video.ids, maps, strict=True)}
        if prompt is not None:
            self._add_objects(frame, prompt, ids, soft, video)
        self._remember(ids, video)
        if not soft_masks:
            return Segmentation(ids)
        return Segmentation(ids, stack_soft_masks(soft, size))

    def _propagate(self, frame: Frame, video: _Video) -> tuple[ObjectMask, Grey]:
        """Ids of the objects in the next frame, and their soft maps."""
        assert video.previous is not None
        assert video.last is not None
        foreground, *soft = self._network_maps(frame, video)
        inside = foreground > THRESHOLD if self.settings.foreground else None
        coarse = soft_to_grey(np.stack(soft) if soft else object_maps(foreground, video.last, video.ids))
        if inside is not None:
            coarse[:, ~inside] = 0
        maps = coarse
        if self.refinement is not None:
            maps = refined(self.refinement, frame, coarse, self.device, self.settings.spn_shorter_side)
        propagated = None if self.refinement is None else maps
        self._maps.write(self._source, video.frames - 1, foreground > THRESHOLD, video.ids, coarse, propagated)
        rows = np.zeros(256, np.uint8)
        rows[video.ids] = np.arange(1, len(video.ids) + 1)
        labels = labelled(maps, rows[video.previous], inside, self._filter)
        return np.array([0, *video.ids], np.uint8)[labels], maps

    def _network_maps(self, frame: Frame, video: _Video) -> list[Soft]:
        """The map of the foreground and, where objects have networks, those of all objects."""
        networks = self.learner.networks(video.ids)
        if self._given is None:
            networks = [self.learner.foreground, *networks]
        maps = foreground_maps(networks, frame, self.device, self.settings.shorter_side)
        return maps if self._given is None else [self._given.read(self._source, video.frames - 1, video.size), *maps]

    def _add_objects(
        self, frame: Frame, prompt: ObjectMask, ids: ObjectMask, soft: dict[int, Soft], video: _Video
    ) -> None:  # fmt: skip
        """Add the prompt's new objects, whose pixels win over propagated ones; changes `ids` and `soft`."""
        new = [object_id for object_id in ids_of(prompt) if object_id not in video.ids and object_id != VOID]
        given = np.isin(prompt, new)
        ids[given] = prompt[given]
        for object_id in new:
            soft[object_id] = (prompt == object_id).astype(np.float32)
        video.ids = sorted([*video.ids, *new])
        if new:
            small = network_size(video.size, self.settings.shorter_side)
            self.learner.learn(resized(frame, small), resized_ids(ids, small), new)

    def _remember(self, ids: ObjectMask, video: _Video) -> None:
        video.previous = ids.copy()
        last = ids.copy() if video.last is None else video.last
        lost = np.isin(last, np.setdiff1d(video.ids, np.unique(ids)))
        video.last = np.where(lost & (ids == 0), last, ids).astype(np.uint8)


def load(
    weights: str | Path | None = None,
    device: str = "auto",
    precision: str = "fp32",
    *,
    online: bool = False,
    **options: Any,
) -> SPNSegmenter:
    """Build the segmenter.

    Args:
        weights: of the parent net: a file of ours, a ``.caffemodel``, or the name of a published one; None for those
            that come with the package.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        precision: ``fp32``, ``bf16`` or ``fp16``, of inference; fine-tuning is always in fp32.
        online: fine-tune networks for the foreground and for each object on first frames.
        options: fields of `InferenceSettings`, with `online` also of `OnlineSettings`.

    Raises:
        UserError: unusable weights, device, precision or option.
    """
    target = choose_device(device)
    dtype = choose_precision(precision, target)
    tuning = {name: options.pop(name) for name in sorted(_names(OnlineSettings) & options.keys())}
    settings = settings_from(InferenceSettings, options, "spn-instances")
    if tuning and not online:
        raise UserError(f"spn-instances: {', '.join(tuning)} belong to fine-tuning; take variant spn-instances+online")
    if settings.networks is not None and not settings.networks.is_dir():
        raise UserError(f"spn-instances: --networks {settings.networks} is not a folder")
    if settings.networks is not None and online:
        raise UserError(
            "spn-instances: --networks takes trained networks, and fine-tuning makes its own; leave one out"
        )
    parent = load_weights(WEIGHTS.locate(weights), ResNetF)
    spn = _refinement(settings)
    if settings.shorter_side is None:
        settings = replace(settings, shorter_side=parent.shorter_side)
    if settings.craf_rule is None:
        official = parent.model.architecture.trunk == "resnet"
        settings = replace(settings, craf_rule="demo" if official else "paper")
    if settings.spn_shorter_side is None and spn is not None:
        settings = replace(settings, spn_shorter_side=spn.shorter_side)
    models = [parent.model] if spn is None else [parent.model, spn.model]
    info = ModelInfo(parameter_count(*models), "; ".join(_described(parent, spn, settings)), parent.trained)
    model = copy.deepcopy(parent.model).eval().requires_grad_(False).to(target)
    learner = OnlineLearner(model, OnlineSettings(**tuning)) if online else Learner(model, settings.networks)
    return SPNSegmenter(learner, None if spn is None else spn.model, info, settings, dtype)


def _refinement(settings: InferenceSettings) -> Snapshot[RefinementNet] | None:
    if not settings.spn:
        return None
    path = REFINEMENT.locate(settings.spn_weights)
    found = load_weights(path, RefinementNet)
    if (classes := found.model.architecture.classes) != 2:
        raise UserError(
            f"spn-instances: {path} refines {classes} classes; give a network of two, object and background"
        )
    return found


def _described(
    parent: Snapshot[ResNetF], spn: Snapshot[RefinementNet] | None, settings: InferenceSettings
) -> list[str]:  # fmt: skip
    """Descriptions of the weights, and for files that options name a hash of their content or state."""
    words = [parent.description]
    if spn is not None:
        content = weights_digest(str(settings.spn_weights)) if settings.spn_weights else ""
        words.append(f"{spn.description} {str(content)[:12]}".strip())
    for what, folder, pattern in (
        ("trained networks", settings.networks, LAST),
        ("foreground masks", settings.foreground_masks, "*.png"),
    ):
        if folder is not None:
            state = [(str(file.relative_to(folder)), file.stat().st_mtime_ns) for file in sorted(folder.rglob(pattern))]
            words.append(f"{what} {results.fingerprint(state)}")
    return words


def _names(settings: type[Any]) -> set[str]:
    return {item.name for item in fields(settings)}
