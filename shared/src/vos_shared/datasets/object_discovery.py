"""Object Discovery in Internet images (Rubinstein et al., CVPR 2013): the subset of 100 images a class.

`Airplane100/*.jpg`, `Car100`, `Horse100`, with masks `<class>/GroundTruth/<image>.png`; the folder may also be above:
`Data`, as in the published archive. Some images hold no object: 18, 11 and 7 of the three. How the archive marks them
could not be checked: an empty mask and no mask at all are both taken so, and `without_masks` says how many have none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from vos_shared.datasets.image_sets import image_sequences, images_in, refuse_resolution
from vos_shared.datasets.names import choose
from vos_shared.datasets.saliency import read_saliency_mask
from vos_shared.datasets.sequence import VideoSequence
from vos_shared.errors import BadDataset

CLASSES: Final = ("Airplane100", "Car100", "Horse100")


def object_discovery(
    root: str | Path,
    split: str | None = None,
    *,
    resolution: str | None = None,
    sequences: Iterable[str] | None = None,
) -> list[VideoSequence]:
    """The images of the classes, a sequence ``<class>_<image>`` of one frame each.

    Args:
        root: folder that holds some of `CLASSES`, or the one above.
        split: one class; by default all that are there.
        resolution: there is one only; must be None.
        sequences: only these.

    Raises:
        BadDataset: no such folder, a class without any mask, or masks without images.
    """
    root = Path(root)
    refuse_resolution(resolution, "Object Discovery")
    wanted = CLASSES if split is None else (split,)
    folders = [folder for base in (root, root / "Data") for name in wanted if (folder := base / name).is_dir()]
    if not folders:
        raise BadDataset(f"{root} is no Object Discovery folder: it holds none of {', '.join(wanted)}")
    found = [sequence for folder in folders for sequence in _class_sequences(folder)]
    names = choose((sequence.name for sequence in found), str(root), sequences)
    by_name = {sequence.name: sequence for sequence in found}
    return [by_name[name] for name in names]


def class_of(sequence_name: str) -> str:
    """The class of a sequence: what stands before the first ``_`` of its name."""
    return sequence_name.split("_", 1)[0]


def without_masks(sequences: Sequence[VideoSequence]) -> list[str]:
    """Names of the images that have no mask file, which count as images without an object."""
    return [sequence.name for sequence in sequences if not sequence.annotations]


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
