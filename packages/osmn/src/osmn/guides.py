"""The two guides of an object: its masked crop (visual) and a Gaussian at its previous position (spatial)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from osmn.networks import GUIDE_SIZE
from vos_shared.method import Frame

BoolMask = npt.NDArray[np.bool_]
Box = tuple[int, int, int, int]

MEAN_BGR = (104.0, 117.0, 123.0)
"""Subtracted from blue, green and red; the official models were trained on BGR (specification, section 8)."""

MAD_TO_STD = 1.4826
"""Ratio of standard deviation to median absolute deviation of a normal distribution."""

MIN_STD = 5.0
"""Smallest standard deviation of the Gaussian in pixels."""


@dataclass(frozen=True)
class Normalisation:
    """How pixels become network input.

    Attributes:
        scale: factor after the mean is subtracted; 1 for VGG trunks, 0.00787 for lite.
    """

    scale: float = 1.0

    def __call__(self, frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """RGB uint8 [H, W, 3] -> float32 BGR [3, H, W]."""
        centred = frame[..., ::-1].astype(np.float32) - np.asarray(MEAN_BGR, np.float32)
        return np.ascontiguousarray((centred * np.float32(self.scale)).transpose(2, 0, 1))


def resize_frame(frame: Frame, size: tuple[int, int]) -> Frame:
    """Resize to (height, width) with Pillow's antialiased bilinear filter; the aspect ratio is not kept."""
    if frame.shape[:2] == size:
        return frame
    return np.asarray(Image.fromarray(frame).resize(size[::-1], Image.Resampling.BILINEAR))


def resize_mask(mask: BoolMask, size: tuple[int, int]) -> BoolMask:
    """Resize to (height, width) by nearest neighbour."""
    if mask.shape == size:
        return mask
    image = Image.fromarray(mask.astype(np.uint8)).resize(size[::-1], Image.Resampling.NEAREST)
    return np.asarray(image).astype(np.bool_)


def resize_object(mask: BoolMask, size: tuple[int, int]) -> BoolMask:
    """As `resize_mask`, but an object that would vanish keeps every cell that one of its pixels falls into."""
    resized = resize_mask(mask, size)
    if not resized.any():
        rows, columns = np.nonzero(mask)
        resized[rows * size[0] // mask.shape[0], columns * size[1] // mask.shape[1]] = True
    return resized


def guide_box(mask: BoolMask) -> Box:
    """Bounding box of an object as in the official code, (left, top, right, bottom); the whole frame for an empty mask.

    The official code passes the last row and column as the end of a half-open crop, so the crop lacks them; the weights
    were trained with such crops. Objects one pixel wide or high keep them, as their crop would be empty.
    """
    rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
    if not len(rows):
        return 0, 0, mask.shape[1], mask.shape[0]
    left, right, top, bottom = int(columns[0]), int(columns[-1]), int(rows[0]), int(rows[-1])
    return left, top, max(right, left + 1), max(bottom, top + 1)


def crop_guide(
    frame: Frame, mask: BoolMask, *, pad_ratio: float = 0.03, keep_aspect: bool = False
) -> tuple[Frame, BoolMask]:
    """Crop the object and resize the crop to the guide's size, as at test time.

    Args:
        frame: uint8 RGB [H, W, 3].
        mask: the object, bool [H, W].
        pad_ratio: black margin as a part of the box's size, on each side.
        keep_aspect: scale to fit and centre on black rather than stretch.

    Returns:
        uint8 [224, 224, 3] and bool [224, 224].
    """
    left, top, right, bottom = guide_box(mask)
    pad_x, pad_y = int(pad_ratio * (right - left)), int(pad_ratio * (bottom - top))
    inner = (left, top, right, bottom)
    outer = (-pad_x, -pad_y, right - left + pad_x, bottom - top + pad_y)
    image = Image.fromarray(frame).crop(inner).crop(outer)
    label = Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).crop(inner).crop(outer)
    return fit_guide(image, label, keep_aspect=keep_aspect)


def fit_guide(image: Image.Image, label: Image.Image, *, keep_aspect: bool) -> tuple[Frame, BoolMask]:
    """Resize a crop to 224x224: the image bilinearly, the label by nearest neighbour."""
    width, height = image.size
    target = (GUIDE_SIZE, GUIDE_SIZE)
    if keep_aspect:
        scale = GUIDE_SIZE / max(width, height)
        target = (max(1, int(width * scale)), max(1, int(height * scale)))
    image = image.resize(target, Image.Resampling.BILINEAR)
    label = label.resize(target, Image.Resampling.NEAREST)
    if keep_aspect:
        left, top = (GUIDE_SIZE - target[0]) // 2, (GUIDE_SIZE - target[1]) // 2
        frame = (-left, -top, GUIDE_SIZE - left, GUIDE_SIZE - top)
        image, label = image.crop(frame), label.crop(frame)
    return np.asarray(image), np.asarray(label) > 0


def visual_guide(
    crop: Frame, label: BoolMask, normalise: Normalisation, *, blank_background: bool = True
) -> npt.NDArray[np.float32]:
    """Normalise a crop and set all but the object to the mean colour; float32 [3, 224, 224]."""
    return normalise(crop) * label if blank_background else normalise(crop)


@dataclass(frozen=True)
class Gaussian:
    """Robust position and size of a mask in pixels, (x, y) each."""

    centre: tuple[float, float]
    std: tuple[float, float]

    @classmethod
    def of(cls, mask: BoolMask) -> Gaussian | None:
        """Median and scaled median absolute deviation of the object's pixels; None for an empty mask.

        The paper names mean and standard deviation; the official code and weights use these.
        """
        rows, columns = np.nonzero(mask)
        if not len(rows):
            return None
        centre = float(np.median(columns)), float(np.median(rows))
        spread = (
            MAD_TO_STD * float(np.median(np.abs(coordinate - middle)))
            for coordinate, middle in zip((columns, rows), centre, strict=True)
        )
        std_x, std_y = (max(std, MIN_STD) for std in spread)
        return cls(centre, (std_x, std_y))

    def render(self, size: tuple[int, int]) -> npt.NDArray[np.float32]:
        """The guidance map, float32 [H, W], peak 1 at the centre, not normalised."""
        x = (np.arange(size[1]) - self.centre[0]) / self.std[0]
        y = (np.arange(size[0]) - self.centre[1]) / self.std[1]
        return np.outer(np.exp(-0.5 * y * y), np.exp(-0.5 * x * x)).astype(np.float32)


def dilated_guide(mask: BoolMask, radius: int = 5) -> npt.NDArray[np.float32]:
    """masktrack's guide: the mask dilated by a disk, times 255; float32 [H, W]."""
    from scipy.ndimage import binary_dilation

    reach = np.arange(-radius, radius + 1)
    disk = reach[:, None] ** 2 + reach[None, :] ** 2 <= radius**2
    dilated: BoolMask = binary_dilation(mask, disk)
    return dilated.astype(np.float32) * np.float32(255)
