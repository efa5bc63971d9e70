"""Annotated objects of COCO, read with pycocotools (extra ``coco``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from vos_shared.errors import BadDataset, MissingExtra
from vos_shared.files import read_json
from vos_shared.images import MAX_SIDE, open_image, orientation, upright, upright_size
from vos_shared.masks import describe_size
from vos_shared.method import Frame
from vos_shared.tables import listed
from vos_shared.video_sources import read_frame

RunLengths = Mapping[str, Any]
"""A mask in pycocotools' format: compressed ``counts`` and ``size`` (height, width)."""


class CocoObjects:
    """Annotated objects of COCO, each with its photograph; crowds and small objects are left out.

    ``len()`` is the number of objects, and ``[i]`` gives the frame, uint8 RGB [H, W, 3], and the mask, bool [H, W].
    Indexing reads the photograph; it raises `BadVideo` if the photograph cannot be read, and `BadDataset` if its size
    differs from that of its annotations. A mask that was drawn on a photograph without its EXIF rotation is rotated
    with it if its size tells; one of a square photograph, or of one upside down, counts as drawn on the upright one.
    Masks are kept compressed.
    """

    def __init__(self, root: str | Path, split: str = "train2017", min_share: float = 0.03) -> None:
        """Read the annotations.

        Args:
            root: folder with `<split>/`, the photographs, and `annotations/instances_<split>.json`.
            split: such as ``train2017``.
            min_share: objects that cover at most this share of their photograph, 0..1, are left out.

        Raises:
            MissingExtra: pycocotools is not installed.
            BadDataset: a file is missing, invalid or of another size, or no object is left.
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
            mask = _set_upright(mask, path)
        return frame, mask

    def _require_photographs(self, annotations: Path) -> None:
        """Check that all photographs exist and have the right size, before training begins."""
        wanted = {found.photograph: tuple(found.mask["size"]) for found in self._objects}
        folders = {(self._folder / photograph).parent for photograph in wanted}
        there = {path for folder in folders if folder.is_dir() for path in folder.iterdir()}
        missing = sorted(photograph for photograph in wanted if self._folder / photograph not in there)
        if missing:
            raise BadDataset(
                f"{self._folder} lacks {len(missing)} photographs that {annotations} names: {listed(missing, most=3)}"
            )
        with ThreadPoolExecutor() as executor:
            paths = [self._folder / photograph for photograph in wanted]
            for _ in executor.map(_require_size, paths, wanted.values()):
                pass


def _require_size(path: Path, size: tuple[int, ...]) -> None:
    """Check that a photograph has the size of its annotations, with or without its EXIF rotation."""
    with open_image(path, "photograph", BadDataset) as image:
        seen, stored = upright_size(image), (image.height, image.width)
    if size not in (seen, stored):
        raise BadDataset(
            f"photograph {path} is {describe_size(seen)}, its annotations are for one "
            f"{describe_size(size)}; download it again"
        )


def _set_upright(mask: npt.NDArray[np.bool_], path: Path) -> npt.NDArray[np.bool_]:
    """Rotate a mask that was drawn on the photograph without its EXIF rotation."""
    _require_size(path, mask.shape)
    with open_image(path, "photograph", BadDataset) as image:
        return np.array(upright(Image.fromarray(mask.astype(np.uint8)), orientation(image))).astype(bool)


@dataclass(frozen=True)
class _Object:
    photograph: str
    mask: RunLengths


def _large(codec: ModuleType, annotations: Mapping[str, Any], min_share: float) -> Iterator[_Object]:
    """Objects that cover more than `min_share` of their photograph."""
    photographs = {photograph["id"]: photograph for photograph in annotations["images"]}
    for annotation in annotations["annotations"]:
        if annotation.get("iscrowd") or not annotation["segmentation"]:
            continue
        photograph = photographs[annotation["image_id"]]
        height, width = photograph["height"], photograph["width"]
        try:
            _require_side(height)
            _require_side(width)
            mask = _run_lengths(codec, annotation["segmentation"], height, width)
            area = int(codec.area(mask))
        except Exception as reason:  # pycocotools raises plain exceptions.
            raise BadDataset(
                f"annotation {annotation['id']} of {photograph['file_name']} has a segmentation that pycocotools "
                f"cannot read ({reason}); it must be polygons or run lengths of {describe_size((height, width))}"
            ) from None
        if area > min_share * height * width:
            yield _Object(str(photograph["file_name"]), mask)


def _run_lengths(codec: ModuleType, segmentation: Any, height: int, width: int) -> RunLengths:
    """Convert polygons or run lengths to compressed run lengths."""
    if isinstance(segmentation, list):
        merged: RunLengths = codec.merge(codec.frPyObjects(_polygons(segmentation), height, width))
        return merged
    if [*segmentation["size"]] != [height, width]:
        raise ValueError(f"size {segmentation['size']}")
    packed: RunLengths = segmentation
    counts = segmentation["counts"]
    lengths = counts if isinstance(counts, list) else _unpacked(counts)
    if any(type(count) is not int or count < 0 for count in lengths) or sum(lengths) != height * width:
        raise ValueError("its run lengths do not fill the picture")
    if isinstance(counts, list):
        packed = codec.frPyObjects(segmentation, height, width)
    return packed


def _require_side(pixels: object) -> None:
    if type(pixels) is not int or not 0 < pixels <= MAX_SIDE:
        raise ValueError(f"size {pixels!r}")


def _polygons(polygons: Sequence[Sequence[float]]) -> Sequence[Sequence[float]]:
    """Check polygons, since pycocotools does not.

    It reads four numbers as a box, ignores the last of an odd count, and walks along each edge pixel by pixel, with
    32-bit numbers, however long the edge is.
    """
    for polygon in polygons:
        if len(polygon) < 6 or len(polygon) % 2:
            raise ValueError(f"polygon of {len(polygon)} numbers")
        for value in polygon:
            if type(value) not in (int, float) or not -_FARTHEST <= value <= _FARTHEST:
                raise ValueError(f"a corner at {value!r:.40}")
    return polygons


_FARTHEST: Final = 4 * MAX_SIDE
"""Largest coordinate in pixels. Polygons may leave their picture, but not by any distance."""


def _unpacked(counts: str | bytes) -> list[int]:
    """Decode the run lengths in pycocotools' text (``rleFrString`` in its maskApi.c).

    Each character holds five bits, and a sixth that is set if more follow. From the fourth number on, differences to
    the last but one are stored.
    """
    lengths: list[int] = []
    value = shift = 0
    for character in counts.encode() if isinstance(counts, str) else counts:
        bits = character - 48
        if not 0 <= bits < 64 or shift > 30:
            raise ValueError("its run lengths are damaged")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (1 << shift) if bits & 16 else 0
            lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("its run lengths are cut short")
    return lengths


def _read(path: Path) -> Mapping[str, Any]:
    try:
        annotations: Mapping[str, Any] = read_json(path)
    except FileNotFoundError:
        raise BadDataset(f"{path.parents[1]} is not a COCO folder with this split: {path} not found") from None
    except (OSError, ValueError) as reason:
        raise BadDataset(f"{path} is not in the format of COCO instances ({reason}); download it again") from None
    return annotations


def _codec() -> ModuleType:
    try:
        from pycocotools import mask
    except ImportError as error:
        raise MissingExtra("pycocotools is needed for COCO: pip install 'vos-shared[coco]'") from error
    module: ModuleType = mask
    return module
