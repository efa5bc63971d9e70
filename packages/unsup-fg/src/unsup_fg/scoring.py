"""Scores of EvalSeg-Net for soft masks, as the official program writes them (specification, section 8)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch

from unsup_fg.selection import read_soft_mask
from unsup_fg.students import Student, image_tensor
from vos_shared.atomic import write_text
from vos_shared.errors import BadDataset
from vos_shared.images import open_image
from vos_shared.method import Frame

BATCH: Final = 16
_IMAGES: Final = (".jpg", ".jpeg", ".png")


def pairs(images: Path, masks: Path) -> list[tuple[str, Path, Path]]:
    """Images and soft masks in parallel trees.

    Args:
        images: folder with ``<folder>/<frame>.jpg`` or ``.png``.
        masks: folder with ``<folder>/<frame>.png``.

    Returns:
        Name of the mask below its tree, image and mask, of every mask.

    Raises:
        BadDataset: no masks, or one without an image.
    """
    found = []
    for mask in sorted(path for path in masks.glob("*/*.png") if not path.name.startswith(".")):
        name = mask.relative_to(masks)
        image = next((path for end in _IMAGES if (path := images / name.with_suffix(end)).is_file()), None)
        if image is None:
            raise BadDataset(f"mask {mask} has no image {images / name.with_suffix('.jpg')}")
        found.append((name.as_posix(), image, mask))
    if not found:
        raise BadDataset(f"{masks} has no masks (<folder>/<frame>.png)")
    return found


def scores(evalseg: Student, found: Sequence[tuple[str, Path, Path]]) -> Iterator[tuple[str, float]]:
    """Name and score of every mask, in order; about 0 to 100, 80 and more is good.

    Raises:
        BadDataset: an image or a mask cannot be read.
    """
    for start in range(0, len(found), BATCH):
        part = found[start : start + BATCH]
        images = torch.stack([image_tensor(_read_image(image), evalseg.size) for _, image, _ in part])
        masks = torch.stack([image_tensor(read_soft_mask(mask), evalseg.size) for _, _, mask in part])
        yield from zip((name for name, _, _ in part), evalseg.run(images, masks).tolist(), strict=True)


def _read_image(path: Path) -> Frame:
    with open_image(path, "image", BadDataset) as image:
        return np.array(image.convert("RGB"))


def write_scores(path: Path, found: Sequence[tuple[str, float]], threshold: float) -> int:
    """Write the masks whose score reaches the threshold, a line ``<folder>/<frame>.png;<score>`` each.

    Returns:
        The number of lines.
    """
    lines = [f"{name};{score:.6g}\n" for name, score in found if score >= threshold]
    write_text(path, "".join(lines))
    return len(lines)
