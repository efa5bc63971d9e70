"""The two views of a clip: a random crop, and the same crop flipped and zoomed, with the affine map between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from dense_ulearn.presets import Augmentation

Matrix: TypeAlias = npt.NDArray[np.float32]
"""An affine map, float32 [2, 3], of coordinates that run from -1 to 1 over the crop: x, y -> x', y'."""


@dataclass(frozen=True)
class Similarity:
    """The transform from the square crop to the second view: mirror, crop a smaller square, scale it up.

    Attributes:
        flip: mirror left and right, before the crop.
        scale: side of the square relative to the crop, a real number.
        size: side of the square in whole pixels.
        top: first row of the square.
        left: first column of the square.
    """

    flip: bool
    scale: float
    size: int
    top: int
    left: int

    @classmethod
    def draw(cls, crop: int, zoom: tuple[float, float], rng: np.random.Generator) -> Similarity:
        """Draw flip, scale and corner for a crop of side `crop`."""
        flip = bool(rng.random() < 0.5)
        scale = float(rng.uniform(*zoom))
        size = max(int(crop * scale), 1)
        top, left = (int(corner) for corner in rng.integers(0, crop - size, size=2, endpoint=True))
        return cls(flip, scale, size, top, left)

    def apply(self, image: Image.Image) -> Image.Image:
        """Make the second view of a square image, at the image's size."""
        if self.flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        square = image.crop((self.left, self.top, self.left + self.size, self.top + self.size))
        return square.resize(image.size, Image.Resampling.BILINEAR)

    def _shift(self, crop: int) -> tuple[float, float]:
        """Centre of the square minus centre of the crop, in half sides: x, y."""
        half = crop / 2
        return (self.left + self.size / 2 - half) / half, (self.top + self.size / 2 - half) / half

    def to_base(self, crop: int) -> Matrix:
        """Map from the second view to the crop; with it, `grid_sample` makes the view from the crop.

        It uses the real-valued scale although the square has whole pixels, a mismatch below a pixel, as published.
        """
        x, y = self._shift(crop)
        sign = -1.0 if self.flip else 1.0
        return np.array([[sign * self.scale, 0, sign * x], [0, self.scale, y]], np.float32)

    def from_base(self, crop: int) -> Matrix:
        """Map from the crop to the second view, the inverse of `to_base`."""
        x, y = self._shift(crop)
        sign = -1.0 if self.flip else 1.0
        return np.array([[sign / self.scale, 0, -x / self.scale], [0, 1 / self.scale, -y / self.scale]], np.float32)


ArrayT = TypeVar("ArrayT")


class Views(NamedTuple, Generic[ArrayT]):
    """Both views of a clip as NumPy arrays; a data loader turns them into tensors with a first axis B.

    Attributes:
        main: the plain view, uint8 RGB [T, 3, S, S].
        other: the transformed (regularising) view, uint8 RGB [T, 3, S, S].
        theta: affine map that aligns the main view with the other one, float32 [2, 3]; the same for all frames.
    """

    main: ArrayT
    other: ArrayT
    theta: ArrayT


ClipViews: TypeAlias = Views[npt.NDArray[Any]]


def scaled_size(size: tuple[int, int], shorter: int) -> tuple[int, int]:
    """Width and height with the shorter side `shorter`; the longer one keeps the aspect ratio, rounded down."""
    width, height = size
    if width > height:
        return int(shorter * width / height), shorter
    return shorter, int(shorter * height / width)


def make_views(frames: Sequence[Image.Image], settings: Augmentation, rng: np.random.Generator) -> ClipViews:
    """Draw the random values of a clip once and make both views.

    Args:
        frames: RGB images of one size.
        settings: sizes and ranges.
        rng: used in the order scale, crop corner, flip, then the second view.
    """
    low, high = settings.shorter_side
    size = scaled_size(frames[0].size, low + int((high - low) * rng.random()))
    box = _crop_box(size, settings, rng)
    flip = bool(rng.random() < 0.5)
    main = [_plain(frame, size, box, flip) for frame in frames]
    similarity = Similarity.draw(settings.crop, settings.zoom, rng)
    other = [similarity.apply(image) for image in main]
    return Views(_stack(main), _stack(other), similarity.to_base(settings.crop))


def _crop_box(
    size: tuple[int, int], settings: Augmentation, rng: np.random.Generator
) -> tuple[int, int, int, int]:  # fmt: skip
    room = size[0] - settings.crop, size[1] - settings.crop
    if settings.random_crop:
        left, top = (int(rng.integers(0, free, endpoint=True)) for free in room)
    else:
        left, top = (free // 2 for free in room)
    return left, top, left + settings.crop, top + settings.crop


def _plain(frame: Image.Image, size: tuple[int, int], box: tuple[int, int, int, int], flip: bool) -> Image.Image:
    image = frame.resize(size, Image.Resampling.BILINEAR).crop(box)
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else image


def _stack(images: Sequence[Image.Image]) -> npt.NDArray[np.uint8]:
    return np.stack([np.asarray(image, np.uint8) for image in images]).transpose(0, 3, 1, 2)  # [T, 3, S, S]
