"""Reading mask files of any program, and telling object ids from pictures of a mask."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL.ImageFile import ImageFile

from vos_shared.errors import BadMask
from vos_shared.files import read_bytes
from vos_shared.images import MAX_SIDE, open_image
from vos_shared.mask_colours import DAVIS_PALETTE, HOW_TO_CONVERT, ids_in_colours, ids_in_palette, is_dithered
from vos_shared.method import ObjectMask
from vos_shared.png import Colours, decode_plain, read_colours

VOID: Final = 255
"""Void pixels, which are ignored; in ground truth only."""

OTHER_NUMBERS: Final = "only its colours show the ids, its numbers are others"
"""The problem of a mask that is read by its colours, for programs that read its numbers."""

_MANY_OBJECTS: Final = 20
"""Videos of data sets have fewer objects; grey files with higher values are checked before they are read as ids."""


@dataclass(frozen=True)
class MaskFile:
    """The content of a mask file, before the checks that depend on its use.

    Attributes:
        path: path of the file.
        ids: uint8 [H, W].
        colours: palette and transparency of the file.
        by_colours: whether the ids were read from colours, not from numbers.
    """

    path: Path
    ids: ObjectMask
    colours: Colours
    by_colours: bool

    @property
    def is_black_and_white(self) -> bool:
        """Whether all ids are 0 or 255."""
        return _is_black_and_white(self.ids)

    def checked(self, *, binary: bool) -> ObjectMask:
        """The ids, uint8 [H, W], after checking that the file is not a picture of a mask.

        Args:
            binary: all nonzero pixels are object 1, so that the mask may be black and white.

        Raises:
            BadMask: dithering, blended edges, greys or black and white instead of ids, or a transparent id.
        """
        largest = int(self.ids.max())
        if self.colours.palette is None and not self.by_colours:
            self._require_no_transparent_id()
            if largest > _MANY_OBJECTS:
                _check_large_values(self.ids, self.path, binary)
        if self._may_be_dithered(largest) and is_dithered(self.ids):
            raise BadMask(
                f"mask {self.path} is dithered or blended, its objects are dots or fine lines; convert it without "
                "dithering and smooth edges (in Pillow: dither=Image.Dither.NONE), or save ids 0..K as a palette PNG"
            )
        return np.minimum(self.ids, np.uint8(1)) if binary else self.ids

    def _may_be_dithered(self, largest: int) -> bool:
        """False for exact DAVIS colours, and for grey with more than two values, which is blended instead."""
        palette = self.colours.palette
        if palette is not None:
            return not np.array_equal(palette[: largest + 1], DAVIS_PALETTE[: largest + 1])
        return bool(((self.ids == 0) | (self.ids == largest)).all())

    def _require_no_transparent_id(self) -> None:
        transparent = int.from_bytes(self.colours.transparency, "big")
        if 0 < transparent <= 255 and (self.ids == transparent).any():
            raise BadMask(f"mask {self.path} shows id {transparent} as transparent; save it without transparency")


def read_file(path: Path) -> MaskFile:
    """Read a mask file; call `MaskFile.checked` on the result.

    Raises:
        BadMask: the file is missing, damaged, too large or not a PNG, or its colours are ambiguous.
    """
    try:
        data = read_bytes(path)
        colours = read_colours(data)
        values = decode_plain(data, MAX_SIDE)
    except OSError:
        colours, values = Colours(), None  # `open_image` raises a clear error.
    except ValueError as reason:
        raise BadMask(f"mask {path} cannot be read: {reason}; is it damaged or cut short?") from None
    if values is None:
        with open_image(path, "mask", BadMask) as image:
            values = _numbers(image, path)
            if values is None:
                return MaskFile(path, _painted_ids(image, path), colours, by_colours=True)
    try:
        ids = ids_in_palette(values, colours)
    except ValueError as reason:
        raise BadMask(f"mask {path} is a picture of a mask: {reason}; {HOW_TO_CONVERT}") from None
    return MaskFile(path, ids, colours, by_colours=ids is not values)


def _numbers(image: ImageFile, path: Path) -> ObjectMask | None:
    """The stored values, uint8 [H, W]; None if the image has colours instead of numbers."""
    if image.format != "PNG":
        raise BadMask(f"mask {path} is a {image.format} file; object masks are PNG files")
    if image.mode == "P":
        return np.array(image)
    if image.mode == "1":
        return np.array(image).astype(np.uint8)
    if image.mode == "L":
        # Pillow scales grey of 2 and 4 bits to 0..255.
        stretch = {"L;2": 85, "L;4": 17}.get(str(image.tile[0].args), 1)
        values = np.array(image)
        return values if stretch == 1 else values // np.uint8(stretch)
    if image.mode.startswith("I"):
        return _narrow(np.array(image), path)
    return _grey_in_colour(image)


def _grey_in_colour(image: ImageFile) -> ObjectMask | None:
    """Grey values that are stored as colours or with an opaque alpha channel, as in some annotations of DAVIS-2016."""
    if image.mode not in ("LA", "RGB", "RGBA"):
        return None
    channels = np.array(image)  # [H, W, C]
    if image.mode != "RGB":
        channels, alpha = channels[..., :-1], channels[..., -1]
        if (alpha != 255).any():
            return None
    return np.ascontiguousarray(channels[..., 0]) if (channels == channels[..., :1]).all() else None


def _painted_ids(image: ImageFile, path: Path) -> ObjectMask:
    pixels = image if image.mode in ("RGB", "RGBA") else image.convert("RGBA")
    ids = ids_in_colours(np.array(pixels))
    if ids is not None:
        return ids
    colours = image.getcolors(image.width * image.height) or []
    raise BadMask(
        f"mask {path} has {len(colours):,} different colours and no palette ({image.mode}), and it is not certain "
        f"which are objects; {HOW_TO_CONVERT}"
    )


def _narrow(values: npt.NDArray[np.integer], path: Path) -> ObjectMask:
    if values.max() > 255:
        raise BadMask(f"mask {path} has 16 bits and holds id {values.max()}; ids above 255 are not supported")
    return values.astype(np.uint8)


def _check_large_values(values: ObjectMask, path: Path, binary: bool) -> None:
    """Raise `BadMask` for grey files that are pictures of a mask: black and white (unless `binary`), or blended edges.

    Ids fill regions. Values between black and white in a resized or JPEG-compressed mask lie along its edges, and few
    of them equal their neighbour.
    """
    if _is_black_and_white(values):
        if binary:
            return
        raise BadMask(
            f"mask {path} is black and white (0 and 255); object masks hold ids 0..K, and 255 is void: "
            "store 1 in place of 255"
        )
    between = (values > 0) & (values < VOID)
    if values[between].max() <= _MANY_OBJECTS:
        return
    different = len(np.unique(values))
    flat = (between[:, 1:] & (values[:, 1:] == values[:, :-1])).sum() / between.sum()
    if different > 64 or (flat < 0.5 and not binary):
        raise BadMask(
            f"mask {path} has {different:,} different values (is it a JPEG or anti-aliased?); "
            "object masks hold ids 0..K"
        )
    if not binary and values.max() == VOID and values[between].min() > _MANY_OBJECTS:
        raise BadMask(
            f"mask {path} shows objects as greys ({', '.join(map(str, np.unique(values)[:5]))}, ..); "
            "store 1, 2, .. in place of them, since 255 is void"
        )


def _is_black_and_white(values: ObjectMask) -> bool:
    """Whether all values are 0 or 255: only these become 0 or 1 when 1 is added."""
    return bool((values + np.uint8(1)).max() <= 1)
