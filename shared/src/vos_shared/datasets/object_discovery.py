"""Object Discovery in Internet images (Rubinstein et al., CVPR 2013): the subset of 100 images a class.

`Airplane100/*.jpg`, `Car100`, `Horse100`, with masks `<class>/GroundTruth/<image>.png`; the folder may also be above:
`Data`, as in the published archive. Some images hold no object: 18, 11 and 7 of the three classes. How the archive
marks them could not be checked; an image with an empty mask or without a mask is taken as one without an object.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from vos_shared.datasets.image_sets import image_sequences, images_in
from vos_shared.datasets.names import choose
from vos_shared.datasets.saliency import read_saliency_mask
from vos_shared.datasets.sequence import VideoSequence
from vos_shared.errors import BadDataset

CLASSES: Final = ("Airplane100", "Car100", "Horse100")


def object_discovery(
    root: str | Path, split: str | None = None, *, sequences: Iterable[str] | None = None
) -> list[VideoSequence]:
    """Load the images of the classes; each is a sequence ``<class>_<image>`` of one frame.

    Args:
        root: folder that holds some of `CLASSES`, or its parent.
        split: a single class; by default all classes in the folder.
        sequences: load only these images.

    Raises:
        BadDataset: no class is there, a class has no images or masks, or there are masks without images.
    """
    root = Path(root)
    wanted = CLASSES if split is None else (split,)
    folders = [folder for base in (root, root / "Data") for name in wanted if (folder := base / name).is_dir()]
    if not folders:
        raise BadDataset(f"{root} is not an Object Discovery folder: it holds none of {', '.join(wanted)}")
    found = [sequence for folder in folders for sequence in _class_sequences(folder)]
    names = choose((sequence.name for sequence in found), str(root), sequences)
    by_name = {sequence.name: sequence for sequence in found}
    return [by_name[name] for name in names]


def class_of(sequence_name: str) -> str:
    """The class of a sequence: its name up to the first ``_``."""
    return sequence_name.split("_", 1)[0]


def _class_sequences(folder: Path) -> list[VideoSequence]:
    truth = folder / "GroundTruth"
    images, masks = images_in(folder), images_in(truth) if truth.is_dir() else {}
    if not images or not masks:
        raise BadDataset(f"{folder} holds {len(images)} images and {len(masks)} masks in GroundTruth")
    if strays := [name for name in masks if name not in images]:
        raise BadDataset(f"{truth} holds masks of images that are not there: {', '.join(strays[:5])}")
    named = {f"{folder.name}_{name}": path for name, path in images.items()}
    labelled = {f"{folder.name}_{name}": path for name, path in masks.items()}
    return image_sequences(named, labelled, read_saliency_mask, binary=True)
