"""Training samples: what one object in one frame looks like to the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from osmn.augmentation import GuideAugmentation, SpatialDraw, VisualDraw, augment_visual
from osmn.guides import BoolMask, Gaussian, Normalisation, resize_frame, resize_mask, visual_guide
from vos_shared.datasets.sequence import Sequence as VideoSequence
from vos_shared.errors import BadDataset
from vos_shared.masks import read_mask
from vos_shared.method import Frame

MIN_MASK_SHARE = 0.003
"""A frame may serve as visual guide if its object covers more than this part of the image .."""
MIN_BOX_SHARE = 0.2
""".. and more than this part of its own box (specification, section 9)."""


@dataclass(frozen=True)
class Example:
    """One object in one frame, and where its guides come from.

    Attributes:
        frame, mask: the frame to segment and the truth.
        guide_frame, guide_mask: the frame that shows what the object looks like.
        previous_mask: where the object was; None is where it is (still images).
    """

    frame: Frame
    mask: BoolMask
    guide_frame: Frame
    guide_mask: BoolMask
    previous_mask: BoolMask | None


class Source(Protocol):
    """Where examples come from."""

    def __len__(self) -> int:
        """Number of different examples."""
        ...

    def example(self, index: int, rng: np.random.Generator) -> Example:
        """Read one example; `rng` decides where it leaves a choice."""
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
        """The image, flipped or not; its guide is not flipped along."""
        image, mask_file = self.pairs[index]
        guide_frame = np.asarray(Image.open(image).convert("RGB"))
        guide_mask = read_mask(mask_file, binary=True).astype(np.bool_)
        frame, mask = guide_frame, guide_mask
        if rng.random() > 0.5:
            frame, mask = frame[:, ::-1], mask[:, ::-1]
        return Example(np.ascontiguousarray(frame), np.ascontiguousarray(mask), guide_frame, guide_mask, None)


@dataclass(frozen=True)
class VideoFrames:
    """Annotated videos: stage 2. The spatial guide comes from the frame before.

    Attributes:
        frames: (sequence, object id, index of the frame); each index is at least 1 and annotated, so is the one before.
        guides: for each sequence and object the frames that may be its visual guide.
    """

    frames: Sequence[tuple[VideoSequence, int, int]]
    guides: dict[tuple[str, int], list[int]]

    @classmethod
    def from_sequences(cls, sequences: Sequence[VideoSequence], *, randomize_guide: bool = True) -> VideoFrames:
        """List every (object, frame) pair of the annotated frames.

        Args:
            sequences: with an annotation in every frame that is to be used.
            randomize_guide: any good frame of the object may be its guide; else only the object's first frame.
        """
        frames: list[tuple[VideoSequence, int, int]] = []
        guides: dict[tuple[str, int], list[int]] = {}
        for sequence in sequences:
            present = _present_objects(sequence)
            for key, shares in present.items():
                steps = [index for index in shares if index - 1 in shares]
                frames.extend((sequence, key, index) for index in steps)
                good = [index for index, (area, box) in shares.items() if area > MIN_MASK_SHARE and box > MIN_BOX_SHARE]
                first = min(shares)
                guides[sequence.name, key] = good if randomize_guide and good else [first]
        if not frames:
            raise BadDataset("osmn: no object is annotated in two consecutive frames; training needs that")
        return cls(frames, guides)

    def __len__(self) -> int:
        """Number of (object, frame) pairs."""
        return len(self.frames)

    def example(self, index: int, rng: np.random.Generator) -> Example:
        """A frame, the mask before it, and one of the object's guide frames."""
        sequence, key, number = self.frames[index]
        guide = int(rng.choice(self.guides[sequence.name, key]))
        return Example(
            _frame(sequence, number),
            _object(sequence, key, number),
            _frame(sequence, guide),
            _object(sequence, key, guide),
            _object(sequence, key, number - 1),
        )


def _present_objects(sequence: VideoSequence) -> dict[int, dict[int, tuple[float, float]]]:
    """Object id -> frame index -> share of the image and of its own box that it covers."""
    present: dict[int, dict[int, tuple[float, float]]] = {}
    for index, name in enumerate(sequence.frame_names):
        mask = sequence.annotation(name)
        if mask is None:
            continue
        for key in np.unique(mask[(mask > 0) & (mask < 255)]).tolist():
            inside = mask == key
            rows, columns = np.nonzero(inside.any(1))[0], np.nonzero(inside.any(0))[0]
            box = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
            present.setdefault(key, {})[index] = (float(inside.mean()), float(inside.sum() / box))
    return present


def _frame(sequence: VideoSequence, index: int) -> Frame:
    return sequence.video[index]


def _object(sequence: VideoSequence, key: int, index: int) -> BoolMask:
    mask = sequence.annotation(sequence.frame_names[index])
    assert mask is not None
    return np.asarray(mask == key)


@dataclass(frozen=True)
class SampleSettings:
    """How examples become network input.

    Attributes:
        size: (height, width) of the frames.
        scales: factors of the size, one of them drawn for each batch.
        scale_value: factor of the normalised pixels.
        augmentation: of the guides.
    """

    size: tuple[int, int] = (480, 854)
    scales: tuple[float, ...] = (0.5, 0.8, 1.0)
    scale_value: float = 1.0
    augmentation: GuideAugmentation = field(default_factory=GuideAugmentation)

    def batch_size_of(self, scale: float) -> tuple[int, int]:
        """(height, width) of a batch at this scale."""
        return int(self.size[0] * scale), int(self.size[1] * scale)


Sample = dict[str, Tensor]
"""image [3, H, W], label bool [1, H, W], spatial [1, H, W], visual [3, 224, 224]."""


def make_sample(example: Example, size: tuple[int, int], settings: SampleSettings, rng: np.random.Generator) -> Sample:
    """Resize, augment and normalise one example."""
    normalise = Normalisation(settings.scale_value)
    draw = VisualDraw.sample(rng, settings.augmentation)
    keep_aspect = settings.augmentation.keep_aspect
    crop, inside = augment_visual(example.guide_frame, example.guide_mask, draw, keep_aspect=keep_aspect)
    label = resize_mask(example.mask, size)
    before = label if example.previous_mask is None else resize_mask(example.previous_mask, size)
    gaussian = Gaussian.of(before)
    moved = None if gaussian is None else SpatialDraw.sample(rng, settings.augmentation)(gaussian)
    spatial = np.zeros(size, np.float32) if moved is None else moved.render(size)
    return {
        "image": torch.from_numpy(normalise(resize_frame(example.frame, size))),
        "label": torch.from_numpy(label.copy())[None],
        "spatial": torch.from_numpy(spatial)[None],
        "visual": torch.from_numpy(visual_guide(crop, inside, normalise)),
    }


class TrainingStream(Dataset[Sample]):
    """An endless, shuffled stream of batches that depends on the seed and the step alone, so that runs can resume.

    Item i is slot i % batch of step i // batch; the samples of one step share their scale.

    Args:
        source: of the examples.
        settings: of the samples.
        batch: samples a step.
        steps: length of the stream.
        seed: of everything random.
    """

    def __init__(self, source: Source, settings: SampleSettings, batch: int, steps: int, seed: int) -> None:
        self.source = source
        self.settings = settings
        self.batch = batch
        self.steps = steps
        self.seed = seed
        self._order: tuple[int, Sequence[int]] = (-1, ())

    def __len__(self) -> int:
        """Samples of all steps."""
        return self.batch * self.steps

    def __getitem__(self, item: int) -> Sample:
        """The sample of one slot."""
        step = item // self.batch
        scale = float(np.random.default_rng([self.seed, 1, step]).choice(self.settings.scales))
        rng = np.random.default_rng([self.seed, 2, item])
        example = self.source.example(self._index(item), rng)
        return make_sample(example, self.settings.batch_size_of(scale), self.settings, rng)

    def _index(self, item: int) -> int:
        epoch, place = divmod(item, len(self.source))
        if self._order[0] != epoch:
            rng = np.random.default_rng([self.seed, 3, epoch])
            self._order = (epoch, rng.permutation(len(self.source)).tolist())
        return int(self._order[1][place])
