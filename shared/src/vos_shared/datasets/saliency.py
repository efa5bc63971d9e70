"""Salient object detection: a folder of images and one of grey masks, as DUTS, ECSSD, PASCAL-S and SOD come.

Read are the folder pairs `images` and `masks`, `images` and `ground_truth_mask` (ECSSD), `DUTS-TE-Image` and
`DUTS-TE-Mask` (or TR), `Imgs` and `GT`. The names of DUTS are those of its archives; those of the other archives differ
between mirrors and could not be checked, so rename their folders to `images` and `masks`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np

from vos_shared.datasets.image_sets import (
    image_sequences,
    images_in,
    listed,
    refuse_resolution,
    require_pairs,
)
from vos_shared.datasets.names import choose
from vos_shared.datasets.sequence import VideoSequence
from vos_shared.errors import BadDataset, BadMask
from vos_shared.images import open_image
from vos_shared.method import ObjectMask

FOLDERS: Final = (
    ("images", "masks"),
    ("images", "ground_truth_mask"),
    ("DUTS-TE-Image", "DUTS-TE-Mask"),
    ("DUTS-TR-Image", "DUTS-TR-Mask"),
    ("Imgs", "GT"),
)
"""Folders of images and masks, the first that is there counts."""

_OBJECT_ABOVE: Final = 128
"""Masks are grey and may have soft edges; what is brighter is the object."""


def saliency(
    root: str | Path,
    split: str | Path | None = None,
    *,
    resolution: str | None = None,
    sequences: Iterable[str] | None = None,
) -> list[VideoSequence]:
    """Images with the mask of what is salient in each.

    Args:
        root: folder that holds one of the pairs of `FOLDERS`.
        split: path of a list of image names; by default all images.
        resolution: there is one only; must be None.
        sequences: only these images.

    Returns:
        A sequence of one frame for each image, in alphabetical order, or in that of the list.

    Raises:
        BadDataset: no such folders, images without masks, or masks without images.
    """
    root = Path(root)
    refuse_resolution(resolution, "a saliency data set")
    pairs = ((root / images, root / masks) for images, masks in FOLDERS)
    found = next(((images, masks) for images, masks in pairs if images.is_dir() and masks.is_dir()), None)
    if found is None:
        known = "; ".join(f"{images} and {masks}" for images, masks in FOLDERS)
        raise BadDataset(f"{root} is no saliency data set; it must hold folders of images and masks, one of: {known}")
    images, masks = images_in(found[0]), images_in(found[1])
    require_pairs(root, images, masks)
    names = choose(images, str(found[0]), sequences) if split is None else listed(Path(split), images, sequences)
    return image_sequences({name: images[name] for name in names}, masks, read_saliency_mask, binary=True)


def read_saliency_mask(path: Path) -> ObjectMask:
    """A grey mask as 0 and 1, uint8 [H, W]: what is above 128 of 255 is the object; of a palette, all but index 0.

    Raises:
        BadMask: it cannot be read.
    """
    with open_image(path, "mask", BadMask) as image:
        if image.mode == "P":
            return (np.asarray(image) > 0).astype(np.uint8)
        grey = np.asarray(image.convert("L") if image.mode in {"1", "L"} else image.convert("RGB").convert("L"))
    if 0 < grey.max() <= _OBJECT_ABOVE:
        raise BadMask(f"mask {path} is dark, its largest value is {grey.max()}; the object must be 255, the rest 0")
    return (grey > _OBJECT_ABOVE).astype(np.uint8)
