"""Object masks: palette PNG files with exact ids, one-hot form, boxes, and drawing them over a frame."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.ImageFile import ImageFile

from vos_shared.atomic import atomic_path
from vos_shared.errors import BadMask
from vos_shared.images import MAX_SIDE, open_image
from vos_shared.method import Frame, ObjectMask
from vos_shared.png import decode_plain

VOID: Final = 255
"""Ground truth only: these pixels do not count."""

_MANY_OBJECTS: Final = 20
"""Data sets hold fewer in a video. Higher values of a grey file deserve a second look before they pass for ids."""


def _davis_palette() -> npt.NDArray[np.uint8]:
    """Bit 3i + c of an id is bit 7 - i of colour channel c: the colour map of PASCAL VOC, which DAVIS took over."""
    ids = np.arange(256)[:, None]
    bits = (ids >> (3 * np.arange(3)[:, None, None] + np.arange(3))) & 1  # [bit, id, channel]
    colours: npt.NDArray[np.uint8] = (bits << (7 - np.arange(3)[:, None, None])).sum(axis=0, dtype=np.uint8)
    return colours


DAVIS_PALETTE: Final = _davis_palette()
"""Colour of each id, uint8 RGB [256, 3]; what DAVIS stores in its annotation files."""
DAVIS_PALETTE.setflags(write=False)


def read_mask(path: str | Path, *, binary: bool = False) -> ObjectMask:
    """Read the object ids of a PNG file, exactly as they were stored.

    Args:
        path: a PNG with a palette, or grey without one, of 1, 2, 4 or 8 bits (16 where no id is above 255).
        binary: whatever is not zero is object 1, as in DAVIS-2016 with its 0/255 masks.

    Returns:
        Ids, uint8 [H, W].

    Raises:
        BadMask: missing, damaged, too large, or not object ids: colours, blended edges, ids above 255, or a
            black-and-white 0/255 mask read without `binary`.

    """
    path = Path(path)
    values = _stored_values(path)
    if values.max() > _MANY_OBJECTS:
        _check_large_values(values, path, binary)
    return np.minimum(values, np.uint8(1)) if binary else values


def read_prompt(path: str | Path) -> ObjectMask:
    """Read a mask that somebody drew: object ids, or black and white, where white is object 1.

    Raises:
        BadMask: as `read_mask`.
    """
    return read_mask(path, binary=_is_black_and_white(_stored_values(Path(path))))


def is_black_and_white(path: Path) -> bool:
    """Whether a mask is 0 and 255, as DAVIS-2016 and drawing programs have it, in place of ids.

    Raises:
        BadMask: it cannot be read.

    """
    values = _stored_values(path)
    return bool(values.any()) and _is_black_and_white(values)


def is_palette(path: Path) -> bool:
    """Whether an image file has a palette.

    Raises:
        BadMask: it cannot be read.

    """
    with open_image(path, "mask", BadMask) as image:
        return image.mode == "P"


def _stored_values(path: Path) -> ObjectMask:
    try:
        with path.open("rb") as file:
            values = decode_plain(file, MAX_SIDE)
    except OSError:
        values = None  # Opening it again says what is wrong.
    except ValueError as reason:
        raise BadMask(f"mask {path} cannot be read: {reason}; is it damaged or cut short?") from None
    if values is not None:
        return values
    with open_image(path, "mask", BadMask) as image:
        return _decode_other(image, path)


def _decode_other(image: ImageFile, path: Path) -> ObjectMask:
    if image.format != "PNG":
        raise BadMask(f"mask {path} is a {image.format} file; object masks are PNG files")
    if image.mode == "P":
        return np.array(image)
    if image.mode == "1":
        return np.array(image).astype(np.uint8)
    if image.mode == "L":
        # Pillow stretches grey of 2 and 4 bits to 0..255, the ids with it.
        stretch = {"L;2": 85, "L;4": 17}.get(str(image.tile[0].args), 1)
        values = np.array(image)
        return values if stretch == 1 else values // np.uint8(stretch)
    if image.mode.startswith("I"):
        return _narrow(np.array(image), path)
    grey = _grey_in_colour(image)
    if grey is not None:
        return grey
    colours = image.getcolors(image.width * image.height) or []
    raise BadMask(
        f"mask {path} has {len(colours):,} different colours and no palette ({image.mode}); "
        "object masks hold ids 0..K, as palette or grey PNG files: save it with 0 for the background and 1, 2, .. in "
        "place of the colours"
    )


def _grey_in_colour(image: ImageFile) -> ObjectMask | None:
    """Grey that was saved as colour or with an opaque alpha channel, as some of DAVIS-2016's annotations are."""
    if image.mode not in ("LA", "RGB", "RGBA"):
        return None
    channels = np.array(image)  # [H, W, C]
    if image.mode != "RGB":
        channels, alpha = channels[..., :-1], channels[..., -1]
        if (alpha != 255).any():
            return None
    return np.ascontiguousarray(channels[..., 0]) if (channels == channels[..., :1]).all() else None


def _narrow(values: npt.NDArray[np.integer], path: Path) -> ObjectMask:
    if values.max() > 255:
        raise BadMask(f"mask {path} has 16 bits and holds id {values.max()}; ids above 255 are not supported")
    return values.astype(np.uint8)


def _check_large_values(values: ObjectMask, path: Path, binary: bool) -> None:
    """Refuse grey files that are pictures of a mask: black and white where ids are wanted, or with blended edges.

    Ids fill regions. The values between black and white of a resized or JPEG-compressed mask do not: they line
    its edges, and few of them equal their neighbour.
    """
    if is_palette(path):
        return
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


def _is_black_and_white(values: ObjectMask) -> bool:
    """Whether all are 0 or 255: adding 1 turns these, and no others, into 1 and 0."""
    return bool((values + np.uint8(1)).max() <= 1)


def write_mask(path: str | Path, mask: ObjectMask) -> None:
    """Write object ids as a PNG with the DAVIS palette, atomically, with 1, 2, 4 or 8 bits as the ids need.

    Args:
        path: where to; the folder must exist.
        mask: ids, uint8 [H, W].

    Raises:
        BadMask: not uint8 [H, W].

    """
    check_mask(mask, f"mask for {path}")
    largest = int(mask.max())
    bits = next(bits for bits in (1, 2, 4, 8) if largest < 1 << bits)
    image = Image.fromarray(mask)
    image.putpalette(DAVIS_PALETTE[: 1 << bits].tobytes())
    with atomic_path(Path(path)) as temporary:
        image.save(temporary, format="PNG", bits=bits, compress_level=3)


def check_mask(mask: ObjectMask, what: str = "mask") -> None:
    """Raise `BadMask` unless the array is uint8 [H, W] with at least one pixel."""
    if mask.dtype != np.uint8 or mask.ndim != 2 or mask.size == 0:
        raise BadMask(f"{what} is {mask.dtype} {list(mask.shape)}; object masks are uint8 [H, W]")


def ids_of(mask: ObjectMask) -> list[int]:
    """Object ids in a mask, ascending, without background (0) and void (255)."""
    largest = int(mask.max(initial=0))
    if largest <= 32:  # One comparison an id is much cheaper than a histogram.
        return [k for k in range(1, largest + 1) if (mask == k).any()]
    counts = np.bincount(mask.ravel(), minlength=256)
    return [int(k) for k in np.flatnonzero(counts[1:VOID]) + 1]


def one_hot(mask: ObjectMask, ids: Sequence[int]) -> npt.NDArray[np.float32]:
    """One plane for each id: 1 where the mask holds it, else 0; float32 [K, H, W]."""
    wanted = np.asarray(ids, dtype=np.uint8).reshape(-1, 1, 1)
    return np.equal(mask, wanted).astype(np.float32)


def bounding_box(mask: npt.NDArray[np.uint8] | npt.NDArray[np.bool_]) -> tuple[int, int, int, int] | None:
    """Smallest box around all nonzero pixels: (top, left, bottom, right), bottom and right exclusive; None if empty."""
    rows = np.flatnonzero(mask.any(axis=1))
    if len(rows) == 0:
        return None
    columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(axis=0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def overlay(frame: Frame, mask: ObjectMask, alpha: float = 0.5) -> Frame:
    """Draw objects over a frame: filled with their palette colour, inside a bright contour.

    Args:
        frame: uint8 RGB [H, W, 3].
        mask: ids, uint8 [H, W]; void is not drawn.
        alpha: opacity of the fill, 0..1.

    Raises:
        BadMask: the mask is not of the frame's size.

    """
    check_mask(mask)
    if mask.shape != frame.shape[:2]:
        raise BadMask(f"mask is {describe_size(mask.shape)}, the frame {describe_size(frame.shape)}; they must agree")
    drawing = frame.copy()
    objects = np.where(mask == VOID, np.uint8(0), mask)
    box = bounding_box(objects)
    if box is None:
        return drawing
    width = max(1, round(mask.shape[0] / 300))
    part = np.s_[max(0, box[0] - width) : box[2] + width, max(0, box[1] - width) : box[3] + width]
    ids, canvas = objects[part], drawing[part]
    inside, edge = ids > 0, _contour(ids, width)
    blended = (1 - alpha) * canvas[inside] + alpha * _VIVID_PALETTE[ids[inside]]
    canvas[inside] = (blended + 0.5).astype(np.uint8)
    canvas[edge] = _CONTOUR_PALETTE[ids[edge]]
    return drawing


def _contour(mask: ObjectMask, width: int) -> npt.NDArray[np.bool_]:
    """Object pixels that have another id within `width` steps along a row or a column."""
    edge = np.zeros(mask.shape, dtype=bool)
    for step in range(1, width + 1):
        across, down = mask[:, step:] != mask[:, :-step], mask[step:] != mask[:-step]
        edge[:, step:] |= across
        edge[:, :-step] |= across
        edge[step:] |= down
        edge[:-step] |= down
    return edge & (mask > 0)


_VIVID_PALETTE: Final = np.clip(DAVIS_PALETTE * 1.7, 0, 255).astype(np.uint8)
_CONTOUR_PALETTE: Final = (_VIVID_PALETTE * 0.4 + 153).astype(np.uint8)


def describe_size(shape: Sequence[int]) -> str:
    """Height and width of an array, in words that leave no doubt which is which."""
    return f"{shape[1]} wide and {shape[0]} high"
