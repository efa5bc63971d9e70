"""Opening image files (frames and masks); a damaged file is an error of one line."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import ExifTags, Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.Image import DecompressionBombError
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.WebPImagePlugin import WebPImageFile

from vos_shared.errors import UserError
from vos_shared.files import open_file
from vos_shared.png import read_colours

MAX_SIDE = 8192
"""Largest side in pixels (8K video). Checked before decoding, since a tiny file may claim gigabytes."""

_SIGNATURES: dict[bytes, type[ImageFile]] = {
    b"\x89PNG\r\n\x1a\n": PngImageFile,
    b"\xff\xd8\xff": JpegImageFile,
    b"BM": BmpImageFile,
    b"RIFF": WebPImageFile,
    b"P5": PpmImageFile,
    b"P6": PpmImageFile,
}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Operations that make a picture upright, by EXIF orientation."""
_ON_ITS_SIDE = frozenset({5, 6, 7, 8})
"""EXIF orientations in which rows and columns are swapped."""
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error, DecompressionBombError)
"""Errors of Pillow's decoders for damaged files; SyntaxError for a broken chunk."""


@contextmanager
def open_image(path: Path, what: str, error: type[UserError]) -> Iterator[ImageFile]:
    """Open an image; its pixels are decoded when the block first uses them.

    Uses the class of the format, since ``PIL.Image.open`` warns of or refuses large images by a global setting.

    Args:
        path: a PNG, JPEG, BMP, WebP or binary PGM or PPM file with any suffix.
        what: role of the file ("frame", "mask"), for messages.
        error: class of the error to raise.

    Raises:
        error: the file is missing, of another format, animated, larger than `MAX_SIDE`, or damaged; damage may be found
            only in the block.
    """
    try:
        with open_file(path) as file:
            start = file.read(16)
            image_class = _image_class(start)
            if image_class is PngImageFile:
                read_colours(start + file.read())  # For the checksums.
            file.seek(0)
            image = image_class(file)
            if max(image.size) > MAX_SIDE:
                width, height = image.size
                raise error(f"{what} {path} is {width} wide and {height} high; the limit is {MAX_SIDE} pixels a side")
            if getattr(image, "is_animated", False):
                raise error(f"{what} {path} is an animation; store it as a video, or each picture as a file")
            yield image
    except FileNotFoundError:
        raise error(f"{what} {path} does not exist") from None
    except _DAMAGE as reason:
        if isinstance(reason, OSError) and reason.errno:  # Errors of Pillow have no number.
            raise error(f"{what} {path} cannot be read: {reason.strerror}") from reason
        raise error(f"{what} {path} cannot be read: {reason}; is it damaged or cut short?") from reason


def _image_class(start: bytes) -> type[ImageFile]:
    for signature, image_class in _SIGNATURES.items():
        if start.startswith(signature):
            return image_class
    raise ValueError("not a PNG, JPEG, BMP, WebP, PGM or PPM file" if start else "the file is empty")


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 (upright) if it is missing or invalid."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except (OSError, ValueError, SyntaxError, struct.error):  # Only the tags are damaged.
        return 1
    return value if type(value) is int and 1 <= value <= 8 else 1


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """Apply an EXIF orientation to a picture."""
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Height and width of the upright picture, from the header."""
    turned = orientation(image) in _ON_ITS_SIDE
    return (image.width, image.height) if turned else (image.height, image.width)
