"""Training samples: the network input for one object in one frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from osmn.augmentation import (
    MaskDraw,
    SpatialDraw,
    VisualDraw,
    augment_visual,
    crop_sides,
    perturb_mask,
)
from osmn.guides import BoolMask, Gaussian, Normalisation, dilated_guide, resize_frame, resize_mask, visual_guide
from osmn.mask_index import find_objects
from osmn.presets import GuideAugmentation, SampleSettings
from vos_shared.datasets.sequence import VideoSequence
from vos_shared.errors import BadDataset
from vos_shared.masks import describe_size, read_mask
from vos_shared.method import Frame
from vos_shared.training.batches import EpochOrder
from vos_shared.video import Video

if TYPE_CHECKING:
    from vos_shared.datasets.coco import CocoObjects

MIN_MASK_SHARE = 0.003
"""A frame may serve as visual guide if the object covers more than this part of the image .."""
MIN_BOX_SHARE = 0.2
""".. and more than this part of its own box (specification, section 9)."""


@dataclass(frozen=True)
class Example:
    """One object in one frame, and the images that its guides are made of.

    Attributes:
        frame, mask: the frame to segment and the truth.
        guide_frame, guide_mask: the frame that shows what the object looks like.
        previous_mask: the object in the frame before; None: use `mask` (still images).
    """

    frame: Frame
    mask: BoolMask
    guide_frame: Frame
    guide_mask: BoolMask
    previous_mask: BoolMask | None


class Source(Protocol):
    """A set of training examples."""

    def __len__(self) -> int:
        """Number of different examples."""
        ...

    def example(self, index: int, rng: np.random.Generator) -> Example:
        """Read one example; `rng` makes the random choices."""
        ...


@dataclass(frozen=True)
class StillImages:
    """Photographs with the mask of one object each: stage 1. Guides come from the same photograph.

    Attributes:
        pairs: image file and mask file; any mask value but 0 is the object.
    """

    pairs: Sequence[tuple[Path, Path]]

    @classmethod
    def from_folder(cls, root: Path) -> StillImages:
        """Pair ``images/NAME.*`` with ``masks/NAME.png``.

        Raises:
            BadDataset: no images, or images without a mask (all of them listed).
        """
        images = sorted(
            path for path in (root / "images").glob("*") if path.suffix.lower() in {".jpg", ".jpeg", ".png"}
        )
        pairs = [(image, root / "masks" / f"{image.stem}.png") for image in images]
        if not pairs:
            raise BadDataset(f"{root}: no images in {root / 'images'} (jpg or png); masks belong in {root / 'masks'}")
        if missing := [str(mask) for _, mask in pairs if not mask.is_file()]:
            raise BadDataset(f"{root}: {len(missing)} images have no mask: {', '.join(missing)}")
        return cls(pairs)

    def __len__(self) -> int:
        """One example an image."""
        return len(self.pairs)

    def example(self, index: int, rng: np.random.Generator) -> Example:
        """Read an image and flip it with probability 0.5; its guide is not flipped."""
        image, mask_file = self.pairs[index]
        frame, mask = Video.open(image)[0], read_mask(mask_file, binary=True).astype(np.bool_)
        if frame.shape[:2] != mask.shape:
            raise BadDataset(
                f"{image} is {describe_size(frame.shape)}, its mask {describe_size(mask.shape)}; they must be equal"
            )
        return _still(frame, mask, rng)


def _still(frame: Frame, mask: BoolMask, rng: np.random.Generator) -> Example:
    """An example of a photograph, flipped with probability 0.5; its guide is not flipped."""
    flip = rng.random() > 0.5
    shown = (frame[:, ::-1], mask[:, ::-1]) if flip else (frame, mask)
    return Example(np.ascontiguousarray(shown[0]), np.ascontiguousarray(shown[1]), frame, mask, None)


@dataclass(frozen=True)
class CocoImages:
    """COCO: stage 1 as published; a sample is one annotation, guides come from the same photograph.

    Attributes:
        objects: frame and mask of each annotation.
    """

    objects: CocoObjects

    @classmethod
    def open(cls, root: Path, split: str) -> CocoImages:
        """Objects that cover more than 3 % of their image, no crowds (specification, section 9).

        Raises:
            BadDataset: names what is missing in the folder.
            MissingExtra: pycocotools is not installed.
        """
        from vos_shared.datasets.coco import CocoObjects

        return cls(CocoObjects(root, split, min_share=0.03))

    def __len__(self) -> int:
        """Number of annotations."""
        return len(self.objects)

    def example(self, index: int, rng: np.random.Generator) -> Example:
        """Read an annotation; its image is flipped with probability 0.5."""
        return _still(*self.objects[index], rng)


class Mixture:
    """Several sources as one; an epoch visits every example of each.

    Args:
        sources: at least one.

    Raises:
        BadDataset: no source holds an example.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self._examples = [(source, index) for source in sources for index in range(len(source))]
        if not self._examples:
            raise BadDataset("osmn: nothing to train on; name folders of photographs with --images, or DAVIS folders")

    def __len__(self) -> int:
        """Number of examples of all sources."""
        return len(self._examples)

    def example(self, index: int, rng: np.random.Generator) -> Example:
        """Read the example from its source."""
        source, place = self._examples[index]
        return source.example(place, rng)


@dataclass(frozen=True)
class VideoFrames:
    """Annotated videos: stage 2. The spatial guide comes from the frame before.

    Attributes:
        frames: (sequence, object id, index of the frame, index of the annotated frame of the object before it).
        guides: for each sequence and object the frames that may be its visual guide.
    """

    frames: Sequence[tuple[VideoSequence, int, int, int]]
    guides: dict[tuple[str, int], list[int]]

    @classmethod
    def from_sequences(
        cls, sequences: Sequence[VideoSequence], folder: Path | None = None, *, randomize_guide: bool = True
    ) -> VideoFrames:
        """List every (object, frame) pair of the annotated frames.

        Args:
            sequences: with an annotation in every frame that is to be used.
            folder: of the run, in which the index of the objects is kept.
            randomize_guide: any good frame of the object may be its guide; else only the object's first frame.
        """
        frames: list[tuple[VideoSequence, int, int, int]] = []
        guides: dict[tuple[str, int], list[int]] = {}
        for sequence, present in zip(sequences, find_objects(sequences, folder), strict=True):
            annotated = [index for index, name in enumerate(sequence.frame_names) if name in sequence.annotations]
            for object_id, shares in present.items():
                first = min(shares)
                # The published program drops frames without the object only where it draws the guide at random.
                used = list(shares) if randomize_guide else [index for index in annotated if index >= first]
                frames.extend((sequence, object_id, index, before) for before, index in pairwise(used))
                good = [index for index, (area, box) in shares.items() if area > MIN_MASK_SHARE and box > MIN_BOX_SHARE]
                guides[sequence.name, object_id] = good if randomize_guide and good else [first]
        if not frames:
            raise BadDataset("osmn: training on videos needs an object with masks in two frames; there is none")
        return cls(frames, guides)

    def __len__(self) -> int:
        """Number of (object, frame) pairs."""
        return len(self.frames)

    def example(self, index: int, rng: np.random.Generator) -> Example:
        """Read a frame, the mask of the frame before, and one of the object's guide frames."""
        sequence, object_id, number, before = self.frames[index]
        guide = int(rng.choice(self.guides[sequence.name, object_id]))
        return Example(
            sequence.video[number],
            _object(sequence, object_id, number),
            sequence.video[guide],
            _object(sequence, object_id, guide),
            _object(sequence, object_id, before),
        )


def _object(sequence: VideoSequence, object_id: int, index: int) -> BoolMask:
    mask = sequence.annotation(sequence.frame_names[index])
    assert mask is not None
    return np.asarray(mask == object_id)


Sample = dict[str, Tensor]
"""image [3, H, W], label bool [1, H, W], spatial [1, H, W], visual [3, 224, 224]."""


def make_sample(example: Example, size: tuple[int, int], settings: SampleSettings, rng: np.random.Generator) -> Sample:
    """Resize, augment and normalise one example."""
    normalise, augmentation = Normalisation(settings.scale_value), settings.augmentation
    draw = VisualDraw.sample(rng, augmentation)
    crop, inside = augment_visual(example.guide_frame, example.guide_mask, draw, keep_aspect=augmentation.keep_aspect)
    frame, mask = example.frame, example.mask
    if settings.frame_crop_ratio and example.previous_mask is None:
        frame, mask = crop_sides(frame, mask, settings.frame_crop_ratio, rng)
    label = resize_mask(mask, size)
    before = label if example.previous_mask is None else resize_mask(example.previous_mask, size)
    spatial = _mask_guide(before, augmentation, rng) if settings.mask_guide else _gaussian(before, augmentation, rng)
    visual = visual_guide(crop, inside, normalise, blank_background=augmentation.blank_background)
    return {
        "image": torch.from_numpy(normalise(resize_frame(frame, size))),
        "label": torch.from_numpy(label.copy())[None],
        "spatial": torch.from_numpy(spatial)[None],
        "visual": torch.from_numpy(visual),
    }


def _gaussian(mask: BoolMask, settings: GuideAugmentation, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    gaussian = Gaussian.of(mask)
    if gaussian is None:
        return np.zeros(mask.shape, np.float32)
    return SpatialDraw.sample(rng, settings)(gaussian).render(mask.shape)


def _mask_guide(mask: BoolMask, settings: GuideAugmentation, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    return dilated_guide(perturb_mask(mask, MaskDraw.sample(rng, settings)))


class TrainingSamples(Dataset[Sample]):
    """Shuffled samples by (step, slot); they depend on the seed alone, and those of one step share a scale.

    Args:
        source: of the examples.
        settings: of the samples.
        batch: samples a step, in all processes.
        seed: of everything random.
    """

    def __init__(self, source: Source, settings: SampleSettings, batch: int, seed: int) -> None:
        self.source = source
        self.settings = settings
        self.batch = batch
        self.seed = seed
        self._order = EpochOrder(len(source), seed, 3)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """Make the sample of a slot of a step."""
        step, slot = key
        item = step * self.batch + slot
        scale = float(np.random.default_rng([self.seed, 1, step]).choice(self.settings.scales))
        rng = np.random.default_rng([self.seed, 2, item])
        example = self.source.example(self._order(*divmod(item, len(self.source))), rng)
        return make_sample(example, self.settings.batch_size_of(scale), self.settings, rng)
