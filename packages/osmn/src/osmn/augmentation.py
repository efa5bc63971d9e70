"""Random changes of the guides in training (specification, section 9). What is drawn and what it does are separate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance

from osmn.guides import BoolMask, Gaussian, fit_guide, guide_box
from osmn.networks import GUIDE_SIZE
from vos_shared.method import Frame


@dataclass(frozen=True)
class GuideAugmentation:
    """How far the guides are changed; the defaults are the official ones.

    Attributes:
        crop_ratio: each side of the visual guide's box moves by up to this part of the box.
        colour: also change brightness, then contrast, by factors of 0.8 to 1.3.
        angle: rotation of the visual guide in degrees, either way.
        centre_ratio: shift of the spatial guide's centre in standard deviations, on each axis.
        std_ratio: the spatial guide's standard deviation is multiplied by 1 / (1 + r) to 1 + r.
        keep_aspect: fit the visual guide into its square in place of stretching it.
    """

    crop_ratio: float = 0.1
    colour: bool = False
    angle: float = 10.0
    centre_ratio: float = 0.2
    std_ratio: float = 0.4
    keep_aspect: bool = False


@dataclass(frozen=True)
class VisualDraw:
    """What chance decided for one visual guide.

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
        """Draw in the official order."""
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
        draw: what chance decided.
        keep_aspect: fit in place of stretching.

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
    # The official rotation centre is pixel (112, 112), whose middle Pillow calls 112.5.
    middle = GUIDE_SIZE / 2 + 0.5
    image = image.rotate(draw.angle, Image.Resampling.NEAREST, center=(middle, middle))
    return np.asarray(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if draw.flip else image)


@dataclass(frozen=True)
class SpatialDraw:
    """What chance decided for one spatial guide: shift in standard deviations and factor of them, (x, y) each."""

    shift: tuple[float, float]
    factor: tuple[float, float]

    @classmethod
    def sample(cls, rng: np.random.Generator, settings: GuideAugmentation) -> SpatialDraw:
        """Draw in the official order."""
        shift_x, shift_y = rng.uniform(-settings.centre_ratio, settings.centre_ratio, 2).tolist()
        high = 1 + settings.std_ratio
        factor_x, factor_y = rng.uniform(1 / high, high, 2).tolist()
        return cls((shift_x, shift_y), (factor_x, factor_y))

    def __call__(self, gaussian: Gaussian) -> Gaussian:
        """The Gaussian, moved and scaled."""
        centre_x, centre_y = (
            centre + shift * std for centre, shift, std in zip(gaussian.centre, self.shift, gaussian.std, strict=True)
        )
        std_x, std_y = (std * factor for std, factor in zip(gaussian.std, self.factor, strict=True))
        return Gaussian((centre_x, centre_y), (std_x, std_y))
