"""Object masks: palette PNG files with exact ids, one-hot form, boxes, and drawing them over a frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from vos_shared.atomic import atomic_path
from vos_shared.errors import BadMask
from vos_shared.mask_colours import DAVIS_PALETTE as DAVIS_PALETTE
from vos_shared.mask_files import VOID as VOID
from vos_shared.mask_files import read_file
from vos_shared.method import Frame, ObjectMask


def read_mask(path: str | Path, *, binary: bool = False) -> ObjectMask:
    """Read the object ids of a PNG file.

    The ids are the stored numbers, unless the palette contradicts them or the file has colours without a palette. Then
    the colours determine the ids, if that is certain; see `vos_shared.mask_colours`.

    Args:
        path: a PNG with a palette or grey, of 1, 2, 4 or 8 bits (16 if no id is above 255), or painted in DAVIS'
            colours or in one colour on black or transparent.
        binary: all nonzero pixels are object 1, as for the 0/255 masks of DAVIS-2016.

    Returns:
        Ids, uint8 [H, W].

    Raises:
        BadMask: the file is missing, damaged or too large, or does not hold object ids: other colours, blended edges,
            dithering, ids above 255, or a black-and-white 0/255 mask read without `binary`.
    """
    return read_file(Path(path)).checked(binary=binary)


def read_truth(path: Path, read: Callable[[Path], ObjectMask] | None, *, binary: bool) -> ObjectMask:
    """Read a mask of a data set, uint8 [H, W], with `read` or, if that is None, with `read_mask`.

    Raises:
        BadMask: the mask cannot be read.
    """
    if read is None:
        return read_mask(path, binary=binary)
    mask = read(path)
    return np.minimum(mask, np.uint8(1)) if binary else mask


def write_mask(path: str | Path, mask: ObjectMask) -> None:
    """Write object ids as a PNG with the DAVIS palette, atomically, with 1, 2, 4 or 8 bits as the ids need.

    Args:
        path: path of the file; its folder must exist.
        mask: ids, uint8 [H, W].

    Raises:
        BadMask: the mask is not uint8 [H, W].
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
    if largest <= 32:  # Comparing each id is much cheaper than a histogram.
        return [k for k in range(1, largest + 1) if (mask == k).any()]
    counts = np.bincount(mask.ravel(), minlength=256)
    return [int(k) for k in np.flatnonzero(counts[1:VOID]) + 1]


def one_hot(mask: ObjectMask, ids: Sequence[int]) -> npt.NDArray[np.float32]:
    """One-hot planes of the ids, float32 [K, H, W]."""
    wanted = np.asarray(ids, dtype=np.uint8).reshape(-1, 1, 1)
    return np.equal(mask, wanted).astype(np.float32)


def bounding_box(mask: npt.NDArray[np.uint8] | npt.NDArray[np.bool_]) -> tuple[int, int, int, int] | None:
    """Bounding box of the nonzero pixels: (top, left, bottom, right), the last two exclusive; None if empty."""
    rows = np.flatnonzero(mask.any(axis=1))
    if len(rows) == 0:
        return None
    columns = np.flatnonzero(mask[rows[0] : rows[-1] + 1].any(axis=0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def overlay(frame: Frame, mask: ObjectMask, alpha: float = 0.5) -> Frame:
    """Draw objects over a frame, filled with their palette colour and with a bright contour.

    Args:
        frame: uint8 RGB [H, W, 3].
        mask: ids, uint8 [H, W]; void is not drawn.
        alpha: opacity of the fill, 0..1.

    Raises:
        BadMask: the mask and the frame differ in size.
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
    """Height and width in unambiguous words: ``854 wide and 480 high``."""
    return f"{shape[1]} wide and {shape[0]} high"
