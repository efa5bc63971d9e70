"""YouTube-Objects with the masks of Jain and Grauman (ECCV 2014): one object, labelled in every tenth frame.

The layout is that of the official preprocessing: `Images/<category>_<video>`, `Labels/<category>_<video>` and
`all.txt`; `prepare_youtube_objects` makes it from the published layout.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image
from tqdm import tqdm

from vos_shared.atomic import atomic_path, write_text
from vos_shared.datasets.names import (
    Split,
    choose,
    frames_in,
    load_all,
    read_lines,
    refuse_missing,
    refuse_paths,
    strange_masks,
)
from vos_shared.datasets.sequence import VideoSequence
from vos_shared.errors import BadDataset
from vos_shared.folders import mask_files
from vos_shared.images import open_image
from vos_shared.tables import listed
from vos_shared.video import Video

_BLACK_BELOW: Final = 128
"""Labels were published as JPEG files, whose values are not exactly black and white."""


def youtube_objects(
    root: str | Path, split: Split = "all", *, sequences: Iterable[str] | None = None, masks_required: bool = True
) -> list[VideoSequence]:
    """Load YouTube-Objects: one foreground object, with masks of some frames.

    Args:
        root: folder that holds `Images`, `Labels` and `all.txt`.
        split: list of sequences: `<split>.txt`.
        sequences: load only these videos of the split.
        masks_required: False accepts videos without labels.

    Raises:
        BadDataset: names all that is missing.
    """
    root = Path(root)
    names = choose(*_listed(root, split), sequences)
    return load_all(root, names, lambda name, missing: _sequence(root, name, masks_required, missing))


def prepare_youtube_objects(root: str | Path, output: str | Path) -> list[str]:
    """Convert the published layout to the one that `youtube_objects` reads; overwrites existing files.

    Labels become black-and-white PNG files: values above 127 are the object.

    Args:
        root: the published folder, `<category>/data/<video>/shots/001/{images/*.png,labels/*.jpg}`.
        output: folder to write; may be `root` itself.

    Returns:
        Names of the sequences, ``<category>_<video>``, as listed in `all.txt`.

    Raises:
        BadDataset: the folder has another layout, a video lacks images or labels, or a label cannot be read.
    """
    root, output = Path(root), Path(output)
    shots = {f"{path.parents[3].name}_{path.parents[1].name}": path for path in sorted(root.glob("*/data/*/shots/001"))}
    if not shots:
        raise BadDataset(f"{root} is not a YouTube-Objects folder: it lacks <category>/data/<video>/shots/001")
    refuse_paths(shots, str(root))
    kinds = {"images": ".png", "labels": ".jpg"}
    missing = [
        f"{s / kind}/*{suffix}"
        for s in shots.values()
        for kind, suffix in kinds.items()
        if not _files(s / kind, suffix)
    ]
    refuse_missing(root, missing)
    for name, shot in tqdm(shots.items(), unit="sequence", disable=None):
        _prepare(shot, output / "Images" / name, output / "Labels" / name)
    write_text(output / "all.txt", "".join(f"{name}\n" for name in shots))
    return list(shots)


def _prepare(shot: Path, images: Path, labels: Path) -> None:
    for folder in (images, labels):
        folder.mkdir(parents=True, exist_ok=True)
    for path in _files(shot / "images", ".png"):
        with atomic_path(images / f"{path.stem}.png") as temporary:
            shutil.copyfile(path, temporary)
    for path in _files(shot / "labels", ".jpg"):
        with open_image(path, "label", BadDataset) as image:
            label = np.array(image.convert("L"))
        black_and_white = np.where(label < _BLACK_BELOW, np.uint8(0), np.uint8(255))
        with atomic_path(labels / f"{path.stem}.png") as temporary:
            Image.fromarray(black_and_white).save(temporary, "PNG")


def _files(folder: Path, suffix: str) -> list[Path]:
    paths = folder.iterdir() if folder.is_dir() else iter(())
    return [path for path in paths if path.suffix.lower() == suffix and not path.name.startswith(".")]


def _listed(root: Path, split: Split) -> tuple[list[str], str]:
    if not isinstance(split, (str, Path)):
        return list(split), "the sequences given"
    path = next((file for file in (root / f"{split}.txt", Path(split)) if file.is_file()), None)
    if path is None:
        raise BadDataset(
            f"{root} is not a YouTube-Objects folder with a list {split}.txt; "
            "make one with vos_shared.datasets.youtube_objects.prepare_youtube_objects from the published data"
        )
    return read_lines(path), str(path)


def _sequence(root: Path, name: str, masks_required: bool, missing: list[str]) -> VideoSequence | None:
    """The sequence, or None after noting what it lacks."""
    images, labels = root / "Images" / name, root / "Labels" / name
    frames, masks = frames_in(images, missing, "images"), mask_files(labels)
    if masks_required and not masks:
        missing.append(f"labels of {name} ({labels})")
    elif frames and (strange := strange_masks(masks, frames)):
        missing.append(f"images {listed(strange)} of {name}, which have labels ({images})")
    if not frames or (masks_required and not masks):
        return None
    annotations = {path.stem: masks[path.stem] for path in frames if path.stem in masks}
    return VideoSequence(name, Video.from_files(frames, name=name), annotations, binary=True)
