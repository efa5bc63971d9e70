"""PASCAL VOC 2012 segmentation: 20 classes, images and masks of class ids with 255 for void.

`JPEGImages/<image>.jpg`, `SegmentationClass/<image>.png`, `ImageSets/Segmentation/<split>.txt`, as in the published
development kit. `root` may also be the parent folder of `VOC2012` or of `VOCdevkit/VOC2012`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from vos_shared.datasets.image_sets import image_sequences, some
from vos_shared.datasets.names import choose, read_lines
from vos_shared.datasets.sequence import VideoSequence
from vos_shared.errors import BadDataset, BadMask
from vos_shared.masks import VOID, read_mask
from vos_shared.method import ObjectMask

VOC_CLASSES: Final = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""Names of the class ids 0..20."""


def voc2012(
    root: str | Path, split: str | Path = "val", *, sequences: Iterable[str] | None = None
) -> list[VideoSequence]:
    """Load the images of a split; annotations hold class ids 0..20, and 255 for void.

    Args:
        root: folder that holds `JPEGImages`, `SegmentationClass` and `ImageSets`, or a parent as above.
        split: `train`, `val` or `trainval`, or the path of a list of image names.
        sequences: load only these images of the split.

    Returns:
        A sequence of one frame for each image, in the order of the list.

    Raises:
        BadDataset: names all that is missing.
    """
    folder = _folder(Path(root))
    candidates = (folder / "ImageSets/Segmentation" / f"{split}.txt", Path(split))
    path = next((file for file in candidates if file.is_file()), None)
    if path is None:
        raise BadDataset(f"{folder} has no list of images {candidates[0].relative_to(folder)}")
    names = choose(read_lines(path), str(path), sequences)
    images = {name: folder / "JPEGImages" / f"{name}.jpg" for name in names}
    masks = {name: folder / "SegmentationClass" / f"{name}.png" for name in names}
    kinds = (("image", images), ("mask", masks))
    absent = {what: [name for name in names if not files[name].is_file()] for what, files in kinds}
    if lacking := [some(gone, what) for what, gone in absent.items() if gone]:
        raise BadDataset(f"{folder} lacks {' and '.join(lacking)} of {path.name}")
    return image_sequences(images, masks, read_classes, binary=False)


def _folder(root: Path) -> Path:
    for folder in (root, root / "VOC2012", root / "VOCdevkit/VOC2012"):
        if all((folder / name).is_dir() for name in ("JPEGImages", "SegmentationClass", "ImageSets")):
            return folder
    raise BadDataset(f"{root} is not a VOC 2012 folder: it must hold JPEGImages, SegmentationClass and ImageSets")


def read_classes(path: Path) -> ObjectMask:
    """Read class ids 0..20 and 255 for void, uint8 [H, W].

    Raises:
        BadMask: the file cannot be read, or holds other ids.
    """
    mask = read_mask(path)
    if (others := mask[(mask >= len(VOC_CLASSES)) & (mask != VOID)]).size:
        raise BadMask(f"mask {path} holds id {others[0]}; the classes of VOC 2012 are 0..20, and 255 is void")
    return mask
