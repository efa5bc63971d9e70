"""One sequence of a data set: its video and the masks that come with it."""

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
    """A video and the masks that are known for some or all of its frames.

    Attributes:
        name: of the sequence, unique in its data set.
        video: the frames.
        annotations: mask file by frame name.
        binary: whatever is not zero in a mask file is object 1 (DAVIS-2016).
        read: reads a mask file where its data set stores ids in a way of its own; by default `read_mask`.
        objects: ids of the objects, each with the frame from which on its mask counts (YouTube-VOS); by default the
            masks tell.
    """

    name: str
    video: Video
    annotations: Mapping[str, Path]
    binary: bool = False
    objects: Mapping[int, str] | None = None
    read: Callable[[Path], ObjectMask] | None = None

    @property
    def frame_names(self) -> collections.abc.Sequence[str]:
        """Name of each frame."""
        return self.video.frame_names

    def annotation(self, frame_name: str) -> ObjectMask | None:
        """The mask of a frame, uint8 [H, W] with 255 for void, or None where there is none.

        Raises:
            BadMask: the file holds no ids, or is not of the frames' size.
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
        """What a semi-supervised method may see: each object's mask in the frame where it first appears, no other.

        Yields:
            Every frame's name, in order, with the mask of the objects that are new there, or None where none is.

        Raises:
            BadMask: as `annotation`.
            BadDataset: at the end, no mask has held one of the `objects`.
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
        """Compare `objects`, where they are known, with all masks.

        Returns:
            What is strange, a line each: objects that are not listed, and are not prompted; objects that the mask of
            their first frame does not hold, and that are prompted later.

        Raises:
            BadMask: as `annotation`.
            BadDataset: no mask holds a listed object, as `prompts`.
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
        """Ids of the objects, ascending; reads all masks unless it is known without them.

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
