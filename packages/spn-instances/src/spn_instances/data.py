"""Training samples of the foreground and object networks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from spn_instances.augmentation import Draw, augment, augment_label
from spn_instances.images import byte_scaled_input, network_input
from spn_instances.refinement_data import ImageMasks
from spn_instances.settings import OFFICIAL_SIZE, SampleSettings
from vos_shared.datasets.sequence import VideoSequence
from vos_shared.errors import BadDataset
from vos_shared.files import read_text
from vos_shared.masks import VOID, describe_size, read_mask
from vos_shared.method import Frame, ObjectMask
from vos_shared.video import Video

Example = tuple[Frame, ObjectMask]
"""A frame, uint8 RGB [H, W, 3], and its label, uint8 [H, W], 1 on the foreground or the object."""
Sample = dict[str, Tensor]
"""``image``, BGR minus mean, float32 [3, H, W], and ``label``, bool [H, W]."""
LEAST_SHARE = 0.04
"""Smallest part of a photograph's area that its object must cover."""


class Source(Protocol):
    """A source of examples: frames with labels."""

    def __len__(self) -> int:
        """Number of examples."""
        ...

    def __getitem__(self, index: int) -> Example:
        """An example."""
        ...


@dataclass(frozen=True)
class Pairs:
    """The frames and masks of an official list; all objects are foreground.

    Attributes:
        files: path of each frame and of its mask.
    """

    files: Sequence[tuple[Path, Path]]

    @classmethod
    def of_list(cls, path: Path, root: Path) -> Pairs:
        """Read an official list: each line names a frame and its mask.

        Args:
            path: of the list.
            root: folder that the names in the list are relative to.

        Raises:
            BadDataset: the list cannot be read, a line has another form, or files are missing.
        """
        try:
            rows = [line.split() for line in read_text(path).splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as reason:
            raise BadDataset(f"list {path} cannot be read: {reason}") from reason
        if not rows or any(len(row) != 2 for row in rows):
            raise BadDataset(f"list {path} is empty or has lines other than 'FRAME MASK'")
        files = [(root / frame.lstrip("/"), root / mask.lstrip("/")) for frame, mask in rows]
        if missing := [file for pair in files for file in pair if not file.is_file()]:
            raise BadDataset(f"list {path}: {len(missing)} files are not there, the first is {missing[0]}")
        return cls(files)

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.files)

    def __getitem__(self, index: int) -> Example:
        """A frame and its label, 1 on all objects."""
        frame_file, mask_file = self.files[index]
        frame, mask = Video.open(frame_file)[0], read_mask(mask_file, binary=True)
        if frame.shape[:2] != mask.shape:
            raise BadDataset(
                f"{frame_file} is {describe_size(frame.shape)}, its mask {describe_size(mask.shape)}; "
                "they must be equal"
            )
        return frame, mask


class AnnotatedFrames:
    """Every annotated frame of some sequences; all objects are foreground.

    Args:
        sequences: with masks.

    Raises:
        BadDataset: there is no annotated frame.
    """

    def __init__(self, sequences: Iterable[VideoSequence]) -> None:
        self.frames = [
            (sequence, index)
            for sequence in sequences
            for index, name in enumerate(sequence.frame_names)
            if name in sequence.annotations
        ]
        if not self.frames:
            raise BadDataset("spn-instances: no annotated frames to train on")

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.frames)

    def __getitem__(self, index: int) -> Example:
        """A frame and its label, 1 on all objects."""
        sequence, place = self.frames[index]
        mask = sequence.annotation(sequence.frame_names[place])
        assert mask is not None
        return sequence.video[place], ((mask > 0) & (mask != VOID)).astype(np.uint8)


class Photographs:
    """Photographs with the mask of one object each, cropped around it to the shape of video frames.

    Photographs with a small object are left out: they mostly show other objects, which have no mask.

    Args:
        folders: as for `ImageMasks.from_folder`.

    Raises:
        BadDataset: a folder has no photographs or lacks masks, or all objects are small.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        files = [pair for folder in folders for pair in ImageMasks.from_folder(folder).files]
        self.photographs = ImageMasks([pair for pair in files if _share(read_mask(pair[1])) >= LEAST_SHARE])
        if not len(self.photographs):
            raise BadDataset(f"spn-instances: no photograph has an object of {LEAST_SHARE:.0%} of its area")

    def __len__(self) -> int:
        """Number of photographs."""
        return len(self.photographs)

    def __getitem__(self, index: int) -> Example:
        """A crop of a photograph and its label, 1 on the object."""
        frame, ids = self.photographs[index]
        label = ((ids > 0) & (ids != VOID)).astype(np.uint8)
        height, width = label.shape
        cut = min(height, round(width * OFFICIAL_SIZE[0] / OFFICIAL_SIZE[1]))
        middle = round(float(np.nonzero(label)[0].mean()))
        top = min(max(middle - cut // 2, 0), height - cut)
        return frame[top : top + cut], label[top : top + cut]


def _share(ids: ObjectMask) -> float:
    return float(((ids > 0) & (ids != VOID)).mean())


@dataclass(frozen=True)
class Mixture:
    """Several sources that are drawn equally often, whatever their lengths."""

    sources: Sequence[Source]

    def __len__(self) -> int:
        """Number of examples; those of shorter sources count more than once."""
        return len(self.sources) * max(len(source) for source in self.sources)

    def __getitem__(self, index: int) -> Example:
        """An example."""
        source = self.sources[index % len(self.sources)]
        return source[index // len(self.sources) % len(source)]


class TrainingSamples(Dataset[Sample]):
    """Samples by (step, slot): augmented examples, drawn with replacement; they depend on the seed alone.

    Args:
        source: the examples.
        settings: of the samples.
        seed: of all random draws.
    """

    def __init__(self, source: Source, settings: SampleSettings, seed: int) -> None:
        self.source, self.settings, self.seed = source, settings, seed

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """The sample of a slot of a step."""
        rng = np.random.default_rng([self.seed, *key])
        # The released code never takes the last entry of a list.
        count = len(self.source) - int(self.settings.compat and len(self.source) > 1)
        frame, label = self.source[int(rng.integers(count))]
        return make_sample(frame, label, self.settings, rng)


def make_sample(frame: Frame, label: ObjectMask, settings: SampleSettings, rng: np.random.Generator) -> Sample:
    """Augment one example and turn it into network input.

    Args:
        frame: uint8 RGB [H, W, 3].
        label: uint8 [H, W].
        settings: of the samples.
        rng: draws the augmentation.
    """
    size = settings.size or frame.shape[:2]
    draw = Draw.sample(rng, settings, (size[0], size[1]))
    if rng.integers(settings.rare + 1) == 0:
        return _plain_sample(frame, label, settings, (size[0], size[1]))
    image = augment(frame, draw, (size[0], size[1]), smooth=not settings.compat)
    mask = augment_label(label, draw, (size[0], size[1]), aligned=not settings.compat)
    return {"image": network_input(image), "label": torch.from_numpy(mask > 0)}


def _plain_sample(frame: Frame, label: ObjectMask, settings: SampleSettings, size: tuple[int, int]) -> Sample:
    """A sample without augmentation, resized only."""
    shape = size[1], size[0]
    mask = np.asarray(Image.fromarray(label).resize(shape, Image.Resampling.NEAREST))
    if settings.compat:
        image = byte_scaled_input(frame, size)
    else:
        image = network_input(np.asarray(Image.fromarray(frame).resize(shape, Image.Resampling.BILINEAR)))
    return {"image": image, "label": torch.from_numpy(mask > 0)}
