"""COCO objects, one a sample, through pycocotools (extra ``coco``)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from vos_shared.errors import BadDataset, MissingExtra
from vos_shared.masks import describe_size
from vos_shared.method import Frame
from vos_shared.video_sources import read_frame

RunLengths = Mapping[str, Any]
"""A mask as pycocotools holds it: compressed ``counts`` and ``size``, height and width."""


class CocoObjects:
    """Annotated objects of COCO, each with its photograph; crowds and small objects are left out.

    Masks are kept compressed, and photographs are read when they are asked for.

    ``len()`` is the number of objects, and ``[i]`` gives the frame, uint8 RGB [H, W, 3], and the mask, bool [H, W].
    The latter raises `BadVideo` for a photograph that cannot be read, and `BadDataset` for one of another size than its
    annotations.
    """

    def __init__(self, root: str | Path, split: str = "train2017", min_share: float = 0.03) -> None:
        """Read the annotations.

        Args:
            root: folder with `<split>/`, the photographs, and `annotations/instances_<split>.json`.
            split: such as ``train2017``.
            min_share: of the photograph, 0..1; masks that cover no more than this are left out.

        Raises:
            MissingExtra: pycocotools is not installed.
            BadDataset: a file is missing or of another form, or no object is left.

        """
        codec = _codec()
        self._folder = Path(root, split)
        path = Path(root, "annotations", f"instances_{split}.json")
        annotations = _read(path)
        try:
            self._objects = list(_large(codec, annotations, min_share))
        except (KeyError, TypeError, AttributeError) as reason:
            raise BadDataset(
                f"{path} is not in the format of COCO instances ({type(reason).__name__}: {reason}); download it again"
            ) from None
        if not self._objects:
            raise BadDataset(f"{path} holds no object that covers more than {min_share:.1%} of its photograph")
        self._require_photographs(path)

    def __len__(self) -> int:
        return len(self._objects)

    def __getitem__(self, index: int) -> tuple[Frame, npt.NDArray[np.bool_]]:
        found = self._objects[index]
        path = self._folder / found.photograph
        frame = read_frame(path)
        mask: npt.NDArray[np.bool_] = np.ascontiguousarray(_codec().decode(found.mask), dtype=bool)
        if frame.shape[:2] != mask.shape:
            raise BadDataset(
                f"photograph {path} is {describe_size(frame.shape)}, its annotations are for one "
                f"{describe_size(mask.shape)}; download it again"
            )
        return frame, mask

    def _require_photographs(self, annotations: Path) -> None:
        there = {path.name for path in self._folder.iterdir()} if self._folder.is_dir() else set()
        missing = sorted({found.photograph for found in self._objects} - there)
        if missing:
            some = ", ".join(missing[:3]) + (", .." if missing[3:] else "")
            raise BadDataset(f"{self._folder} lacks {len(missing)} photographs that {annotations} names: {some}")


@dataclass(frozen=True)
class _Object:
    photograph: str
    mask: RunLengths


def _large(codec: ModuleType, annotations: Mapping[str, Any], min_share: float) -> Iterator[_Object]:
    """Objects that cover more than this share of their photograph."""
    photographs = {photograph["id"]: photograph for photograph in annotations["images"]}
    for annotation in annotations["annotations"]:
        if annotation.get("iscrowd") or not annotation["segmentation"]:
            continue
        photograph = photographs[annotation["image_id"]]
        height, width = photograph["height"], photograph["width"]
        try:
            mask = _run_lengths(codec, annotation["segmentation"], height, width)
            area = int(codec.area(mask))
        except Exception as reason:  # pycocotools raises plain ones.
            raise BadDataset(
                f"annotation {annotation['id']} of {photograph['file_name']} has a segmentation that pycocotools "
                f"cannot read ({reason}); it must be polygons or run lengths of {describe_size((height, width))}"
            ) from None
        if area > min_share * height * width:
            yield _Object(photograph["file_name"], mask)


def _run_lengths(codec: ModuleType, segmentation: Any, height: int, width: int) -> RunLengths:
    """Polygons, or run lengths that are compressed or not, as compressed ones."""
    if isinstance(segmentation, list):
        merged: RunLengths = codec.merge(codec.frPyObjects(_polygons(segmentation), height, width))
        return merged
    if [*segmentation["size"]] != [height, width]:
        raise ValueError(f"size {segmentation['size']}")
    packed: RunLengths = segmentation
    if isinstance(segmentation["counts"], list):
        packed = codec.frPyObjects(segmentation, height, width)
    return packed


def _polygons(listed: Sequence[Sequence[float]]) -> Sequence[Sequence[float]]:
    """The polygons, checked: pycocotools takes four numbers for a box and drops what is left over of an odd count."""
    for polygon in listed:
        if len(polygon) < 6 or len(polygon) % 2:
            raise ValueError(f"polygon of {len(polygon)} numbers")
    return listed


def _read(path: Path) -> Mapping[str, Any]:
    try:
        annotations: Mapping[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise BadDataset(f"{path.parents[1]} is no COCO folder with this split: {path} not found") from None
    except (OSError, ValueError, RecursionError) as reason:
        raise BadDataset(f"{path} is not in the format of COCO instances ({reason}); download it again") from None
    return annotations


def _codec() -> ModuleType:
    try:
        from pycocotools import mask
    except ImportError as error:
        raise MissingExtra("pycocotools is needed for COCO: pip install 'vos-shared[coco]'") from error
    module: ModuleType = mask
    return module
