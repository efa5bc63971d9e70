"""A sequence of a data set: a video and its masks."""

from __future__ import annotations

import collections.abc
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vos_shared.errors import BadDataset, BadMask
from vos_shared.masks import VOID, describe_size, ids_of, read_truth
from vos_shared.method import ObjectMask
from vos_shared.tables import listed
from vos_shared.video import Video


@dataclass(frozen=True)
class VideoSequence:
    """A video with masks of some or all of its frames.

    Attributes:
        name: name of the sequence, unique in its data set.
        video: the frames.
        annotations: mask files by frame name.
        binary: all nonzero pixels of a mask file are object 1 (DAVIS-2016).
        objects: object ids, each with the name of the first frame in which its mask counts (YouTube-VOS); None if the
            masks define the objects.
        read: reads a mask file of a data set with its own format; None for `read_mask`.
    """

    name: str
    video: Video
    annotations: Mapping[str, Path]
    binary: bool = False
    objects: Mapping[int, str] | None = None
    read: Callable[[Path], ObjectMask] | None = None

    @property
    def frame_names(self) -> collections.abc.Sequence[str]:
        """Names of the frames, in order."""
        return self.video.frame_names

    def annotation(self, frame_name: str) -> ObjectMask | None:
        """The mask of a frame, uint8 [H, W] with 255 for void; None if the frame has no mask.

        Raises:
            BadMask: the file does not hold object ids, or its size differs from that of the frames.
        """
        path = self.annotations.get(frame_name)
        if path is None:
            return None
        mask = read_truth(path, self.read, binary=self.binary)
        if mask.shape != self.video.size:
            raise BadMask(
                f"mask {path} is {describe_size(mask.shape)}, "
                f"the frames of {self.name} are {describe_size(self.video.size)}; a mask must be of its frame's size"
            )
        return mask

    def prompts(self) -> Iterator[tuple[str, ObjectMask | None]]:
        """The prompts of a semi-supervised method: the mask of each object in the frame where it first appears.

        Yields:
            The name of each frame, in order, and the mask of the objects that are new in it (None if there are none).

        Raises:
            BadMask: as `annotation`.
            BadDataset: after the last frame, if one of the `objects` was in no mask.
        """
        known: set[int] = {0, VOID}
        hidden = set() if self.objects is None else set(range(1, VOID))
        for frame_name in self.frame_names:
            hidden.difference_update(k for k, first in (self.objects or {}).items() if first == frame_name)
            mask = self.annotation(frame_name)
            ids = [] if mask is None else ids_of(mask)
            new = [k for k in ids if k not in known | hidden]
            known.update(new)
            yield frame_name, _only(mask, new) if mask is not None and new else None
        unseen = [f"{k} from {first} on" for k, first in (self.objects or {}).items() if k not in known]
        if unseen:
            raise BadDataset(
                f"{self.name}: meta.json lists object {listed(unseen)}, but no mask from there on holds it; "
                "mend the masks or meta.json, or leave the sequence out"
            )

    def compare_objects(self) -> list[str]:
        """Compare `objects` with all masks.

        Returns:
            A note for each object in the masks that is not listed (it is not prompted), and for each listed object that
            the mask of its first frame does not hold (it is prompted later).

        Raises:
            BadMask: as `annotation`.
            BadDataset: as `prompts`.
        """
        if self.objects is None:
            return []
        firsts = {k: name for name, prompt in self.prompts() if prompt is not None for k in ids_of(prompt)}
        masks = [mask for name in self.frame_names if (mask := self.annotation(name)) is not None]
        strange = sorted({k for mask in masks for k in ids_of(mask)} - self.objects.keys())
        late = [k for k, first in self.objects.items() if firsts[k] != first]
        return [
            *(f"{self.name}: masks hold object {k}, which meta.json does not list; it does not count" for k in strange),
            *(
                f"{self.name}: object {k} is listed from {self.objects[k]} on, and seen from {firsts[k]} on"
                for k in late
            ),
        ]

    def object_ids(self) -> list[int]:
        """Object ids, ascending; reads all masks unless the ids are known without.

        Raises:
            BadMask: as `annotation`.
        """
        if self.objects is not None:
            return sorted(self.objects)
        if self.binary:
            return [1]
        return sorted(k for _, prompt in self.prompts() if prompt is not None for k in ids_of(prompt))


def _only(mask: ObjectMask, ids: list[int]) -> ObjectMask:
    keep = np.zeros(256, dtype=np.uint8)
    keep[ids] = ids
    return keep[mask]
