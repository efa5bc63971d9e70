"""Opening image files: frames and masks alike go through here, so that a damaged file is one clear line."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL.BmpImagePlugin import BmpImageFile
from PIL.Image import DecompressionBombError
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.WebPImagePlugin import WebPImageFile

from vos_shared.errors import UserError
from vos_shared.files import open_file

MAX_SIDE = 8192
"""Pixels; 8K video fits. A file may be tiny and still claim gigabytes, so this is checked before decoding."""

_SIGNATURES: dict[bytes, type[ImageFile]] = {
    b"\x89PNG\r\n\x1a\n": PngImageFile,
    b"\xff\xd8\xff": JpegImageFile,
    b"BM": BmpImageFile,
    b"RIFF": WebPImageFile,
    b"P5": PpmImageFile,
    b"P6": PpmImageFile,
}
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error, DecompressionBombError)
"""What Pillow's decoders raise for damaged files; a SyntaxError is its word for a broken chunk."""


@contextmanager
def open_image(path: Path, what: str, error: type[UserError]) -> Iterator[ImageFile]:
    """Open an image whose pixels are decoded on first use inside the block.

    The format's own class is used rather than ``PIL.Image.open``, which warns of (or refuses) large images by a
    setting that is global to the process.

    Args:
        path: a PNG, JPEG, BMP, WebP or binary PGM or PPM file; its content counts, not its suffix.
        what: what the file is to the user ("frame", "mask"), for the error.
        error: the class of error to raise.

    Raises:
        error: no such file, another format, larger than `MAX_SIDE`, or damaged, also where the block finds that out.

    """
    try:
        with open_file(path) as file:
            start = file.read(16)
            file.seek(0)
            image = _image_class(start)(file)
            if max(image.size) > MAX_SIDE:
                width, height = image.size
                raise error(f"{what} {path} is {width} wide and {height} high; the limit is {MAX_SIDE} pixels a side")
            yield image
    except FileNotFoundError:
        raise error(f"{what} {path} does not exist") from None
    except _DAMAGE as reason:
        raise error(f"{what} {path} cannot be read: {reason}; is it damaged or cut short?") from reason


def _image_class(start: bytes) -> type[ImageFile]:
    for signature, image_class in _SIGNATURES.items():
        if start.startswith(signature):
            return image_class
    raise ValueError("not a PNG, JPEG, BMP, WebP, PGM or PPM file" if start else "the file is empty")
