"""Label propagation: soft labels of earlier frames reach a new frame by similarity of features (paper section 3.4).

Every cell of a new frame takes the labels of its nearest cells in feature space. They are searched in the reference
frame, the one that prompts an object, and within a radius in the latest frames. Labels stay soft.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dense_ulearn.neighbours import CPU, GPU, Area, Candidates, ContextFrames, Grain, ReferenceFrame, Tiling, merge
from dense_ulearn.settings import PropagationSettings
from vos_shared.runtime.workers import Workers


@dataclass
class _Reference:
    """A frame that prompts objects: searched as a whole in all later frames, for its own objects only."""

    frame: int
    features: ReferenceFrame
    labels: Tensor  # [h * w, M]
    valid: Tensor  # float32 [M]: 1 for the channels of its objects


class LabelPropagation:
    """Propagates labels through one video, one frame at a time, in bounded memory.

    Channels are the ids seen so far in ascending order, 0 (background) always the first: see `ids`.

    Args:
        settings: context, radius, neighbours, temperature.
        dtype: of the stored features of earlier frames.
        grain: sizes of the pieces of the search; None: those for the device of the features.
    """

    def __init__(
        self, settings: PropagationSettings, dtype: torch.dtype = torch.float32, grain: Grain | None = None
    ) -> None:
        self.settings, self.dtype, self.grain = settings, dtype, grain
        self.ids: list[int] = [0]
        self._time = 0
        self._references: list[_Reference] = []
        self._tiling: Tiling | None = None
        self._context: ContextFrames | None = None
        self._labels: list[Tensor] = []  # of each slot, [h * w, M]

    @property
    def idle(self) -> bool:
        """True until the first prompt: all frames so far are background, and their features are not needed."""
        return not self._references

    def skip(self) -> None:
        """Count a frame without features; only while `idle`."""
        self._time += 1

    def step(self, features: Tensor, masks: Tensor | None = None, ids: Sequence[int] = ()) -> Tensor:
        """Propagate labels to the next frame.

        Args:
            features: [h, w, D], of one size in all frames; similarity is the dot product, so vectors of unit length are
                expected.
            masks: of the objects that are new in this frame, float32 [K, H, W].
            ids: their K ids; in the first prompt also 0, the background.

        Returns:
            Soft labels, float32 [h, w, M], in the order of `ids`.
        """
        height, width, _ = features.shape
        if self._tiling is None:
            grain = self.grain or (CPU if features.device.type == "cpu" else GPU)
            self._tiling = Tiling(height, width, self.settings.radius, grain)
            self._context = ContextFrames(self._tiling, self.dtype)
        self._add_channels(ids)
        labels = self._propagate(features) if self._references else features.new_zeros(height * width, len(self.ids))
        labels = labels.float()
        if masks is not None and len(ids):
            given = self._down_sized(masks, ids, (height, width))  # [h * w, M]
            share = given.sum(1, keepdim=True)
            # After the first frame, soft borders are weighted twice, as published.
            labels = given if self._time == 0 else (1 - share) * labels + share * given
            self._add_reference(features, labels, given, ids)
        self._remember(features, labels)
        self._time += 1
        return labels.view(height, width, -1)

    def _down_sized(self, masks: Tensor, ids: Sequence[int], size: tuple[int, int]) -> Tensor:
        """Masks of new objects [K, H, W] in their channels of the feature map, [h * w, M]."""
        small = F.interpolate(masks[None], size, mode="bilinear", align_corners=True)[0].flatten(1).T
        given = small.new_zeros(len(small), len(self.ids))
        given[:, [self.ids.index(object_id) for object_id in ids]] = small
        return given

    def _add_channels(self, ids: Sequence[int]) -> None:
        """Widen all stored labels by the channels of new ids."""
        old = self.ids
        self.ids = sorted({*old, *ids})
        if len(self.ids) == len(old):
            return
        places = [self.ids.index(object_id) for object_id in old]

        def widen(labels: Tensor) -> Tensor:
            wide = labels.new_zeros(*labels.shape[:-1], len(self.ids))
            wide[..., places] = labels
            return wide

        self._labels = [widen(labels) for labels in self._labels]
        for reference in self._references:
            reference.labels, reference.valid = widen(reference.labels), widen(reference.valid)

    def _add_reference(self, features: Tensor, labels: Tensor, given: Tensor, ids: Sequence[int]) -> None:
        assert self._tiling is not None
        valid = torch.zeros(len(self.ids), device=labels.device)
        valid[[self.ids.index(object_id) for object_id in ids]] = 1
        if self._time == 0:  # Published: an object of the first frame that vanishes on the small map is lost.
            valid = valid * (given.sum(0) > 0)
        self._references.append(
            _Reference(self._time, ReferenceFrame(features, self.dtype, self._tiling.grain), labels, valid)
        )

    def _remember(self, features: Tensor, labels: Tensor) -> None:
        """Store the frame in the slot of the oldest one."""
        if not self._references or not self.settings.context:
            return
        assert self._context is not None
        slot = self._slot(self._time)
        self._context.put(slot, features, self.settings.context)
        self._labels[slot : slot + 1] = [labels]

    def _slot(self, frame: int) -> int:
        return (frame - self._references[0].frame) % self.settings.context

    def _propagate(self, features: Tensor) -> Tensor:
        """Labels of the new frame from all references and the context: [h, w, D] -> [h * w, M]."""
        assert self._tiling is not None
        table = torch.cat([*self._labels, *(reference.labels for reference in self._references)])
        blocks = self._tiling.blocks()
        if len(blocks) == 1:
            parts = [self._propagate_block(blocks[0], features, table)]
        else:
            with Workers(features.device) as workers:
                parts = list(workers.map(lambda block: self._propagate_block(block, features, table), blocks))
        labels = table.new_empty(*features.shape[:2], table.shape[1])
        for block, part in zip(blocks, parts, strict=True):
            labels[block.top : block.bottom, block.left : block.right] = part
        return labels.flatten(0, 1)

    @torch.inference_mode()
    def _propagate_block(self, block: Area, features: Tensor, table: Tensor) -> Tensor:
        """Labels of one block from the label table [slots * h * w, M]: [h, w, D] -> [rows, columns, M]."""
        assert self._context is not None
        area = features[block.top : block.bottom, block.left : block.right].float()
        queries = area.flatten(0, 1)
        k = self.settings.neighbours
        sources = {reference.frame: self._sources(reference.frame) for reference in self._references}
        slot_sets = sorted({slots for source in sources.values() for slots, _ in source})
        near = dict(zip(slot_sets, self._context.nearest(block, queries, slot_sets, k), strict=True))
        result = table.new_zeros(len(queries), table.shape[1])
        for number, reference in enumerate(self._references):
            found = [reference.features.nearest(queries, len(self._labels) + number, k)]
            for slots, times in sources[reference.frame]:
                found += [near[slots]] * min(times, k)
            result += reference.valid * self._vote(merge(found, k), table)
        return result.view(*area.shape[:2], -1)

    def _sources(self, reference: int) -> list[tuple[tuple[int, ...], int]]:
        """Slots of the context frames for a reference, and how often each frame counts.

        The context is frame max(j, reference) for each of the N latest frames j. As long as fewer than N frames follow
        the reference, it takes the place of the missing ones, and each copy votes.
        """
        oldest = self._time - self.settings.context
        later = tuple(sorted(self._slot(frame) for frame in range(max(oldest, reference + 1), self._time)))
        copies = min(reference - oldest + 1, self.settings.context)
        sources = [(later, 1)] if later else []
        return [*sources, ((self._slot(reference),), copies)] if copies > 0 else sources

    def _vote(self, candidates: Candidates, table: Tensor) -> Tensor:
        """Labels of the candidates, weighted by similarity, [q, M]."""
        weights = torch.softmax(candidates.similarity / self.settings.temperature, 1)  # [q, k]
        return torch.bmm(weights[:, None], table[candidates.place]).squeeze(1)
