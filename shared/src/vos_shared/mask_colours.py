"""Ids from the colours of a mask file: programs that draw, convert or shrink pictures change the numbers."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from vos_shared.method import ObjectMask
from vos_shared.png import Colours


def _davis_palette() -> npt.NDArray[np.uint8]:
    """The colour map of PASCAL VOC, which DAVIS uses: bit 3i + c of an id is bit 7 - i of colour channel c."""
    ids = np.arange(256)[:, None]
    bits = (ids >> (3 * np.arange(3)[:, None, None] + np.arange(3))) & 1  # [bit, id, channel]
    colours: npt.NDArray[np.uint8] = (bits << (7 - np.arange(3)[:, None, None])).sum(axis=0, dtype=np.uint8)
    return colours


DAVIS_PALETTE: Final = _davis_palette()
"""Colour of each id, uint8 RGB [256, 3], as in the annotation files of DAVIS."""
DAVIS_PALETTE.setflags(write=False)

HOW_TO_CONVERT: Final = (
    "paint each object in one flat colour, without smooth edges and without JPEG: one object white on black, several "
    "in DAVIS' colours (128, 0, 0), (0, 128, 0), (128, 128, 0), .. on black; "
    "or save 0 for the background and 1, 2, .. in place of the colours"
)

_ID_OF_COLOUR: Final = {tuple(colour): k for k, colour in enumerate(DAVIS_PALETTE.tolist())}
_BLACK: Final = (0, 0, 0)
_WHITE: Final = (255, 255, 255)

Colour = tuple[int, ...]


def ids_in_palette(values: ObjectMask, colours: Colours) -> ObjectMask:
    """The ids of an indexed mask: its numbers or, if its colours contradict them, its colours.

    Colours contradict the numbers if a number other than 0 is background (black or transparent) and 0 is not, if they
    are DAVIS' colours (or nearly) in another order, or if the palette is Pillow's default for pictures. Any other
    colours are ignored.

    Args:
        values: the numbers, uint8 [H, W].
        colours: the colours of the file.

    Returns:
        Ids, uint8 [H, W]; `values` itself if the numbers are the ids.

    Raises:
        ValueError: the colours contradict the numbers and are neither DAVIS' nor black and white.
    """
    palette = colours.palette
    largest = int(values.max())
    if palette is None or np.array_equal(palette[: largest + 1], DAVIS_PALETTE[: largest + 1]):
        return values
    if np.array_equal(palette[:4], DAVIS_PALETTE[:4, ::-1]):  # With blue first, as OpenCV has colours.
        return values
    used = np.flatnonzero(np.bincount(values.ravel(), minlength=256)).tolist()
    shown = {k: _colour(colours, k) for k in used if k < len(palette)}
    ids = _ids_shown(list(shown.values()))
    background = set(shown.values()) & {_BLACK, ()}
    moved = _colour(colours, 0) not in background and any(shown[k] in background for k in shown if k > 0)
    if not (moved or _is_pillows(palette) or _in_another_order(shown, nearly=ids is None)):
        return values
    if ids is None or len(shown) < len(used):
        listed = ", ".join(f"{k} {_described(colour)}" for k, colour in list(shown.items())[:4])
        raise ValueError(f"the colours of its palette contradict its numbers ({listed})")
    table = np.zeros(256, np.uint8)
    table[list(shown)] = ids
    return table[values]


def ids_in_colours(pixels: npt.NDArray[np.uint8]) -> ObjectMask | None:
    """The ids of a mask that is painted without a palette, if the colours are unambiguous.

    They are if they are DAVIS' colours on black or transparent, or a single colour, which is object 1, on black or
    transparent.

    Args:
        pixels: uint8 [H, W, C], RGB or RGBA.

    Returns:
        Ids, uint8 [H, W]; None if the colours are ambiguous.
    """
    packed = pixels.astype(np.uint32) @ (1 << np.uint32(8) * np.arange(pixels.shape[-1], dtype=np.uint32))
    if pixels.shape[-1] == 4:
        opacity = pixels[..., 3]
        if ((opacity > 0) & (opacity < 255)).any():
            return None
        packed[opacity == 0] = 0
    found, where = np.unique(packed, return_inverse=True)
    if len(found) > len(DAVIS_PALETTE) + 1:
        return None
    shown = [_unpacked(int(value), pixels.shape[-1]) for value in found]
    ids = _ids_shown(shown)
    if ids is None and len(shown) == 2 and len({_BLACK, ()} & set(shown)) == 1:
        ids = [int(colour not in (_BLACK, ())) for colour in shown]
    return None if ids is None else np.array(ids, np.uint8)[where.reshape(packed.shape)]


def is_dithered(ids: ObjectMask) -> bool:
    """Whether objects consist of dots or fine lines, after a conversion to a palette that lacks their colours.

    Ids fill regions, in which nearly all pixels have a neighbour with the same id to the right or below. In dithered
    and blended pictures, many pixels of most ids have none.
    """
    ids = ids[ids.any(axis=1)]
    if np.count_nonzero(ids) < _FEW_PIXELS:
        return False
    flat = np.zeros(ids.shape, bool)
    flat[:, :-1] |= ids[:, :-1] == ids[:, 1:]
    flat[:-1] |= ids[:-1] == ids[1:]
    pixels = np.bincount(ids.ravel(), minlength=256)[1:]
    flat_pixels = np.bincount(ids[flat], minlength=256)[1:]
    judged = pixels >= _FEW_PIXELS // 4
    return bool(judged.any()) and float(np.median(flat_pixels[judged] / pixels[judged])) < 0.75


_FEW_PIXELS: Final = 64
"""A mask with fewer pixels is not judged, nor an object with fewer than a quarter of them, which may be thin."""


def _colour(colours: Colours, number: int) -> Colour:
    """RGB of a number; empty if it is transparent."""
    if colours.transparency[number : number + 1] == b"\0":
        return ()
    return tuple(colours.palette[number].tolist()) if colours.palette is not None and len(colours.palette) else _BLACK


def _unpacked(value: int, channels: int) -> Colour:
    """RGB of a pixel whose channels are packed into one number; empty if it is transparent."""
    red, green, blue, opacity = value.to_bytes(4, "little")
    return () if channels == 4 and opacity == 0 else (red, green, blue)


def _ids_shown(shown: list[Colour]) -> list[int] | None:
    """The id of each colour; None unless all colours are different and DAVIS', or black and white.

    Together with transparent pixels (background), black is ambiguous.
    """
    if len(set(shown)) < len(shown) or {_BLACK, ()} <= set(shown):
        return None
    if set(shown) <= {_BLACK, (), _WHITE}:
        return [int(colour == _WHITE) for colour in shown]
    ids = [0 if colour == () else _ID_OF_COLOUR.get(colour) for colour in shown]
    known = [k for k in ids if k is not None]
    return known if len(known) == len(ids) else None


def _is_pillows(palette: npt.NDArray[np.uint8]) -> bool:
    """Whether it is Pillow's default palette for converted pictures: 6 steps of each channel, after 10 entries."""
    return np.array_equal(palette[10:226], np.indices((6, 6, 6)).reshape(3, -1).T[:, ::-1] * 51)


def _in_another_order(shown: dict[int, Colour], *, nearly: bool) -> bool:
    """Whether a number has the colour of another id. Greys are ignored, since many palettes contain them.

    Args:
        shown: colours by their numbers.
        nearly: test for colours that are close to, but not equal to that of a low id: means of blended pixels.
    """
    coloured = {k: np.array(colour) for k, colour in shown.items() if len(set(colour)) > 1}
    if not nearly:
        return any(_ID_OF_COLOUR[shown[k]] != k for k in coloured)
    distances = {k: np.abs(DAVIS_PALETTE[:21] - colour).max(axis=1) for k, colour in coloured.items()}
    return any(0 < distance.min() <= 3 and distance.argmin() != k for k, distance in distances.items())


def _described(colour: Colour) -> str:
    names = {_BLACK: "black", _WHITE: "white", (): "transparent"}
    return names.get(colour, str(colour))
