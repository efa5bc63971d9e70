"""Training samples of the refinement network: a photograph, one object in it, and a coarse mask of that object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor
from torch.utils.data import Dataset

from spn_instances.images import network_input
from vos_shared.datasets.names import read_lines
from vos_shared.errors import BadDataset
from vos_shared.masks import VOID, describe_size, ids_of, read_mask
from vos_shared.method import Frame, ObjectMask
from vos_shared.video import Video

FloatMask = npt.NDArray[np.float32]
Sample = dict[str, Tensor]
"""``image``, BGR minus mean, float32 [3, h, w]; ``coarse``, probabilities of background and object, float32 [2, h, w];
``label``, int64 [h, w] of 0, 1 and 255 (void)."""

_SCALES = (0.6, 1.2)
"""Range of a photograph's scale, relative to that at which its shorter side is 1.2 times the crop."""


@dataclass(frozen=True)
class ImageMasks:
    """Files of photographs and of their masks, which hold object ids; 255 is void.

    Attributes:
        files: path of each photograph and of its mask.
    """

    files: Sequence[tuple[Path, Path]]

    @classmethod
    def from_folder(cls, root: Path) -> ImageMasks:
        """Pair ``images/NAME.jpg`` or ``.png`` with ``masks/NAME.png``, or read PASCAL VOC's train list.

        Raises:
            BadDataset: there are no photographs, or files are missing.
        """
        listed = root / "ImageSets" / "Segmentation" / "train.txt"
        if listed.is_file():
            names = read_lines(listed)
            images = [root / "JPEGImages" / f"{name}.jpg" for name in names]
            masks = root / "SegmentationClass"
        else:
            images = sorted(p for p in (root / "images").glob("*") if p.suffix.lower() in {".jpg", ".jpeg", ".png"})
            masks = root / "masks"
        pairs = [(image, masks / f"{image.stem}.png") for image in images]
        if not pairs:
            raise BadDataset(f"{root}: no photographs; it should hold images/ and masks/, or be a PASCAL VOC folder")
        if missing := [file for pair in pairs for file in pair if not file.is_file()]:
            raise BadDataset(f"{root}: {len(missing)} files are not there, the first is {missing[0]}")
        return cls(pairs)

    def __len__(self) -> int:
        """Number of photographs."""
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Frame, ObjectMask]:
        """A photograph, uint8 RGB [H, W, 3], and its object ids, uint8 [H, W]."""
        image_file, mask_file = self.files[index]
        frame, mask = Video.open(image_file)[0], read_mask(mask_file)
        if frame.shape[:2] != mask.shape:
            raise BadDataset(
                f"{image_file} is {describe_size(frame.shape)}, its mask {describe_size(mask.shape)}; "
                "they must be equal"
            )
        return frame, mask


def degrade(mask: npt.NDArray[np.bool_], rng: np.random.Generator) -> FloatMask:
    """Turn a true mask into a coarse one, like that of a network with a stride: blurred, moved, with missing and
    additional parts.

    Args:
        mask: bool [H, W].
        rng: draws the changes.

    Returns:
        Probabilities, float32 [H, W] in 0..1.
    """
    height, width = mask.shape
    cell = int(rng.integers(8, 33))
    shape = max(height // cell, 1) + 1, max(width // cell, 1) + 1
    noise = np.asarray(Image.fromarray(rng.normal(0, 1, shape).astype(np.float32)).resize((width, height)))
    moved = ndimage.shift(mask.astype(np.float32), rng.uniform(-0.02, 0.02, 2) * mask.shape, order=1, mode="nearest")
    blurred = ndimage.gaussian_filter(moved, float(rng.uniform(1, 8)))
    logits = rng.uniform(4, 12) * (blurred - 0.5 + rng.uniform(-0.15, 0.15) + rng.uniform(0, 0.35) * noise)
    return np.asarray(1 / (1 + np.exp(-logits)), np.float32)


class RefinementSamples(Dataset[Sample]):
    """Samples by (step, slot) that depend on the seed alone.

    Args:
        source: the photographs.
        crop: side of the square crops, in pixels.
        seed: of all random draws.
    """

    def __init__(self, source: ImageMasks, crop: int, seed: int) -> None:
        self.source, self.crop, self.seed = source, crop, seed

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """The sample of a slot of a step."""
        rng = np.random.default_rng([self.seed, *key])
        frame, ids = self.source[int(rng.integers(len(self.source)))]
        frame, ids = _scaled(frame, ids, self.crop, rng)
        found = [object_id for object_id in ids_of(ids) if object_id != VOID]
        label = np.asarray(ids == rng.choice(found) if found else ids == -1)
        coarse = degrade(label, rng)
        top, left = _corner(label, self.crop, rng)
        window = slice(top, top + self.crop), slice(left, left + self.crop)
        step = -1 if rng.random() < 0.5 else 1
        cut = frame[window][:, ::step], coarse[window][:, ::step]
        truth = np.where(ids == VOID, VOID, label)[window][:, ::step]
        return {
            "image": network_input(cut[0]),
            "coarse": torch.from_numpy(np.stack([1 - cut[1], cut[1]])),
            "label": torch.from_numpy(truth.astype(np.int64)),
        }


def _scaled(frame: Frame, ids: ObjectMask, crop: int, rng: np.random.Generator) -> tuple[Frame, ObjectMask]:
    """The photograph at a random scale, at least as large as the crop."""
    scale = 1.2 * crop / min(ids.shape) * rng.uniform(*_SCALES)
    height, width = (max(crop, round(length * scale)) for length in ids.shape)
    picture = Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(picture), np.asarray(Image.fromarray(ids).resize((width, height), Image.Resampling.NEAREST))


def _corner(label: npt.NDArray[np.bool_], crop: int, rng: np.random.Generator) -> tuple[int, int]:
    """Draw the corner of the crop, as in the original up to ten times until it shows object and background."""
    for _ in range(10):
        top, left = (int(rng.integers(length - crop + 1)) for length in label.shape)
        inside = label[top : top + crop, left : left + crop]
        if inside.any() and not inside.all():
            break
    return top, left
