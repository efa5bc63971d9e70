"""Salient object detection (DUTS, ECSSD, PASCAL-S, SOD): a folder of images and a folder of grey masks.

The folders must be a pair of `FOLDERS`. The names of DUTS are those of its archives. The other archives could not be
checked and differ between mirrors; rename their folders to `images` and `masks`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np

from vos_shared.datasets.image_sets import image_sequences, images_in, names_in_split, require_pairs
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
"""Folders of images and masks; the first pair that exists is used."""

_OBJECT_ABOVE: Final = 128
"""Masks are grey and may have soft edges; brighter pixels are the object."""


def saliency(
    root: str | Path, split: str | Path | None = None, *, sequences: Iterable[str] | None = None
) -> list[VideoSequence]:
    """Images with the mask of what is salient in each.

    Args:
        root: folder that holds one of the pairs of `FOLDERS`.
        split: path of a list of image names; by default all images.
        sequences: load only these images.

    Returns:
        A sequence of one frame for each image, in alphabetical order or in the order of the list.

    Raises:
        BadDataset: the folders are missing, or images without masks or masks without images.
    """
    root = Path(root)
    pairs = ((root / images, root / masks) for images, masks in FOLDERS)
    found = next(((images, masks) for images, masks in pairs if images.is_dir() and masks.is_dir()), None)
    if found is None:
        known = "; ".join(f"{images} and {masks}" for images, masks in FOLDERS)
        raise BadDataset(f"{root} is not a saliency data set; it must hold folders of images and masks: {known}")
    images, masks = images_in(found[0]), images_in(found[1])
    require_pairs(root, images, masks)
    names = (
        choose(images, str(found[0]), sequences) if split is None else names_in_split(Path(split), images, sequences)
    )
    return image_sequences({name: images[name] for name in names}, masks, read_saliency_mask, binary=True)


def read_saliency_mask(path: Path) -> ObjectMask:
    """Read a grey mask as 0 and 1, uint8 [H, W]: values above 128 are the object; with a palette, all but index 0.

    Raises:
        BadMask: the file cannot be read, or is too dark.
    """
    with open_image(path, "mask", BadMask) as image:
        if image.mode == "P":
            return (np.asarray(image) > 0).astype(np.uint8)
        grey = np.asarray(image.convert("L") if image.mode in {"1", "L"} else image.convert("RGB").convert("L"))
    if 0 < grey.max() <= _OBJECT_ABOVE:
        raise BadMask(f"mask {path} is dark, its largest value is {grey.max()}; the object must be 255, the rest 0")
    return (grey > _OBJECT_ABOVE).astype(np.uint8)
