"""Random changes of the guides in training (specification, section 9): random draws, and functions that apply them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance

from osmn.guides import BoolMask, Gaussian, fit_guide, guide_box
from osmn.networks import GUIDE_SIZE
from osmn.presets import GuideAugmentation
from vos_shared.method import Frame


@dataclass(frozen=True)
class VisualDraw:
    """Random draws for one visual guide.

    Attributes:
        sides: growth of the box on the left, top, right and bottom as a part of its size; positive adds black.
        colour: factors of brightness and contrast, or None.
        angle: degrees, counter-clockwise.
        flip: mirror left and right.
    """

    sides: tuple[float, float, float, float]
    colour: tuple[float, float] | None
    angle: float
    flip: bool

    @classmethod
    def sample(cls, rng: np.random.Generator, settings: GuideAugmentation) -> VisualDraw:
        """Draw in the order of the official code."""
        left, top, right, bottom = rng.uniform(-settings.crop_ratio, settings.crop_ratio, 4).tolist()
        colour = tuple(rng.uniform(0.8, 1.3, 2).tolist()) if settings.colour else None
        angle = rng.uniform(-settings.angle, settings.angle)
        return cls((left, top, right, bottom), colour, float(angle), bool(rng.random() > 0.5))


def augment_visual(
    frame: Frame, mask: BoolMask, draw: VisualDraw, *, keep_aspect: bool = False
) -> tuple[Frame, BoolMask]:
    """Crop the object with moved sides, resize to 224x224, change colours, rotate, flip.

    Args:
        frame: uint8 RGB [H, W, 3].
        mask: the object, bool [H, W].
        draw: the random draws.
        keep_aspect: scale to fit instead of stretching.

    Returns:
        uint8 [224, 224, 3] and bool [224, 224].
    """
    box = guide_box(mask)
    width, height = box[2] - box[0], box[3] - box[1]
    left, top, right, bottom = (
        int(ratio * size) for ratio, size in zip(draw.sides, (width, height, width, height), strict=True)
    )
    moved = (-left, -top, max(width + right, 1 - left), max(height + bottom, 1 - top))
    image = Image.fromarray(frame).crop(box).crop(moved)
    label = Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).crop(box).crop(moved)
    crop, inside = fit_guide(image, label, keep_aspect=keep_aspect)
    return _turn(_recolour(Image.fromarray(crop), draw.colour), draw), np.asarray(_turn(Image.fromarray(inside), draw))


def _recolour(image: Image.Image, factors: tuple[float, float] | None) -> Image.Image:
    if factors is None:
        return image
    return ImageEnhance.Contrast(ImageEnhance.Brightness(image).enhance(factors[0])).enhance(factors[1])


def _turn(image: Image.Image, draw: VisualDraw) -> Frame:
    # The official rotation centre is pixel (112, 112), whose middle is at 112.5 for Pillow.
    middle = GUIDE_SIZE / 2 + 0.5
    image = image.rotate(draw.angle, Image.Resampling.NEAREST, center=(middle, middle))
    return np.asarray(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if draw.flip else image)


@dataclass(frozen=True)
class SpatialDraw:
    """Random draws for one spatial guide: shift in standard deviations and factor of them, (x, y) each."""

    shift: tuple[float, float]
    factor: tuple[float, float]

    @classmethod
    def sample(cls, rng: np.random.Generator, settings: GuideAugmentation) -> SpatialDraw:
        """Draw in the order of the official code."""
        shift_x, shift_y = rng.uniform(-settings.centre_ratio, settings.centre_ratio, 2).tolist()
        high = 1 + settings.std_ratio
        factor_x, factor_y = rng.uniform(1 / high, high, 2).tolist()
        return cls((shift_x, shift_y), (factor_x, factor_y))

    def __call__(self, gaussian: Gaussian) -> Gaussian:
        """Move and scale a Gaussian."""
        centre_x, centre_y = (
            centre + shift * std for centre, shift, std in zip(gaussian.centre, self.shift, gaussian.std, strict=True)
        )
        std_x, std_y = (std * factor for std, factor in zip(gaussian.std, self.factor, strict=True))
        return Gaussian((centre_x, centre_y), (std_x, std_y))


@dataclass(frozen=True)
class MaskDraw:
    """Random draws for one of masktrack's guides: a scale, and a shift (x, y) as a part of the box."""

    scale: float
    shift: tuple[float, float]

    @classmethod
    def sample(cls, rng: np.random.Generator, settings: GuideAugmentation) -> MaskDraw:
        """Draw in the order of the official code."""
        scale = float(rng.uniform(*settings.mask_scale))
        shift_x, shift_y = rng.uniform(-settings.mask_shift, settings.mask_shift, 2).tolist()
        return cls(scale, (shift_x, shift_y))


def perturb_mask(mask: BoolMask, draw: MaskDraw) -> BoolMask:
    """Scale the object about its middle and move it; parts outside the frame are cut off.

    Args:
        mask: bool [H, W]; an empty one is returned unchanged.
        draw: the random draws.
    """
    rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
    if not len(rows):
        return mask.copy()
    height, width = (int(inside[-1] - inside[0]) + 1 for inside in (rows, columns))
    new_height, new_width = max(1, round(draw.scale * height)), max(1, round(draw.scale * width))
    # Cell i of the result shows cell floor(i / scale): the official nearest-neighbour rule, checked pixel by pixel.
    from_rows = np.minimum((np.arange(new_height) / draw.scale).astype(int), height - 1) + rows[0]
    from_columns = np.minimum((np.arange(new_width) / draw.scale).astype(int), width - 1) + columns[0]
    top = round((rows[0] + rows[-1]) / 2 + draw.shift[1] * height - new_height / 2)
    left = round((columns[0] + columns[-1]) / 2 + draw.shift[0] * width - new_width / 2)
    to_rows, to_columns = np.arange(new_height) + top, np.arange(new_width) + left
    row_inside = (to_rows >= 0) & (to_rows < mask.shape[0])
    column_inside = (to_columns >= 0) & (to_columns < mask.shape[1])
    moved = np.zeros_like(mask)
    moved[np.ix_(to_rows[row_inside], to_columns[column_inside])] = mask[
        np.ix_(from_rows[row_inside], from_columns[column_inside])
    ]
    return moved


def crop_sides(frame: Frame, mask: BoolMask, ratio: float, rng: np.random.Generator) -> tuple[Frame, BoolMask]:
    """Move each side of a frame by up to `ratio` of its length; added area is black.

    This is the random crop of the paper's ablation; in the official command lines the ratio is 0.
    """
    height, width = mask.shape
    left, top, right, bottom = rng.uniform(-ratio, ratio, 4).tolist()
    box = (-int(left * width), -int(top * height), width + int(right * width), height + int(bottom * height))
    image = Image.fromarray(frame).crop(box)
    label = Image.fromarray(mask.astype(np.uint8)).crop(box)
    return np.asarray(image), np.asarray(label).astype(np.bool_)
