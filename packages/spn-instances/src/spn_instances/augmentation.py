"""Augmentation of frames and labels (specification, section 4): random values are drawn first, then applied."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from spn_instances.settings import SampleSettings
from vos_shared.method import Frame, ObjectMask

NEAREST, BILINEAR = Image.Resampling.NEAREST, Image.Resampling.BILINEAR


@dataclass(frozen=True)
class Draw:
    """The random values of one sample.

    Attributes:
        scale: the sample is scaled by 1 + this.
        rotation: in degrees, counter-clockwise.
        shift: displacement to the left and upwards, in pixels.
        flip: mirror left and right.
        crop: position of the crop of labels with `SampleSettings.compat`, 0..1 along x and y.
    """

    scale: float
    rotation: float
    shift: tuple[int, int]
    flip: bool
    crop: tuple[float, float]

    @classmethod
    def sample(cls, rng: np.random.Generator, settings: SampleSettings, size: tuple[int, int]) -> Draw:
        """Draw the values, in the official order, for samples of a height and width."""
        scale, rotation, across, down = rng.uniform(-1, 1, 4).tolist()
        flip = bool(rng.random() < 0.5)
        crop_x, crop_y = rng.random(2).tolist()
        shift = int(across * settings.shift * size[1]), int(down * settings.shift * size[0])
        return cls(scale * settings.scale, rotation * settings.rotation, shift, flip, (crop_x, crop_y))


def augment(image: Frame, draw: Draw, size: tuple[int, int], *, smooth: bool = True) -> Frame:
    """Warp a frame; pixels from outside it are black.

    Args:
        image: uint8 [H, W, 3].
        draw: the random values.
        size: height and width of the result.
        smooth: resample bilinearly; the released code takes the nearest pixel.
    """
    warped = _warp(Image.fromarray(image), draw, size, BILINEAR if smooth else NEAREST)
    return _fitted(warped, size, _centre(warped, size), BILINEAR if smooth else NEAREST)


def augment_label(label: ObjectMask, draw: Draw, size: tuple[int, int], *, aligned: bool = True) -> ObjectMask:
    """Warp a label map like its frame; pixels from outside it are background.

    Args:
        label: uint8 [H, W].
        draw: the random values.
        size: height and width of the result.
        aligned: crop the label where the frame is cropped; the released code crops it at a random place.
    """
    warped = _warp(Image.fromarray(label), draw, size, NEAREST)
    spare = warped.width - size[1], warped.height - size[0]
    anywhere = int(draw.crop[0] * spare[0]), int(draw.crop[1] * spare[1])
    return _fitted(warped, size, _centre(warped, size) if aligned else anywhere, NEAREST)


def _warp(image: Image.Image, draw: Draw, size: tuple[int, int], how: Image.Resampling) -> Image.Image:
    scaled = image.resize((int(size[1] * (1 + draw.scale)), int(size[0] * (1 + draw.scale))), how)
    moved = scaled.transform(scaled.size, Image.Transform.AFFINE, (1, 0, draw.shift[0], 0, 1, draw.shift[1]), how)
    turned = moved.rotate(draw.rotation, how)
    return turned.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if draw.flip else turned


def _centre(image: Image.Image, size: tuple[int, int]) -> tuple[int, int]:
    return int((image.width - size[1]) / 2), int((image.height - size[0]) / 2)


def _fitted(image: Image.Image, size: tuple[int, int], corner: tuple[int, int], how: Image.Resampling) -> Frame:
    """Crop a larger image at a corner (x, y); stretch a smaller one."""
    height, width = size
    if image.width >= width and image.height >= height:
        image = image.crop((*corner, corner[0] + width, corner[1] + height))
    else:
        image = image.resize((width, height), how)
    return np.asarray(image)
