"""Results for images and frames as soft masks of the foreground, whoever wrote them and however.

Of a frame it is `<sequence>/<frame>.png`, of an image (a sequence of one frame) also `<image>.png` right in the results
folder: a palette PNG of object ids, or a grey one whose values are 255ths. In place of PNG it may be `npy`, or `npz`
with one array; or the soft masks of objects as ``segment --soft-masks`` writes them, `<sequence>/<id>/<frame>.npy`.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from vos_shared.errors import BadResults
from vos_shared.files import open_file
from vos_shared.images import open_image
from vos_shared.masks import VOID, describe_size
from vos_shared.soft_masks import SoftMask, read_soft_mask

if TYPE_CHECKING:
    from vos_shared.datasets.sequence import VideoSequence

_SUFFIXES: Final = (".png", ".npy", ".npz")
_LISTED: Final = 5


def find_prediction(results: Path, sequence: VideoSequence, frame_name: str) -> Path | None:
    """The file, or the folder of a sequence with soft masks of objects, that holds the result for a frame."""
    folder = results / sequence.name
    stems = [folder / frame_name, *([folder] if len(sequence.frame_names) == 1 else [])]
    for stem in stems:
        for suffix in _SUFFIXES:
            if (path := stem.with_name(stem.name + suffix)).is_file():
                return path
    soft = folder.is_dir() and (any(folder.glob("[0-9]*/")) or _is_finished(folder))
    return folder if soft else None


def _is_finished(folder: Path) -> bool:
    """Whether `segment` wrote a folder; it writes no soft masks of objects that are never seen."""
    return not any(folder.glob("*.png")) and (folder.parent / ".manifest" / f"{folder.name}.json").is_file()


def find_predictions(results: Path, frames: Iterable[tuple[VideoSequence, str]]) -> list[Path]:
    """The result for each frame.

    Args:
        results: the folder.
        frames: of which sequence, by name.

    Raises:
        BadResults: no such folder, or with the frames that have no result.
    """
    if not results.is_dir():
        raise BadResults(f"no such results folder: {results}")
    wanted = list(frames)
    found = [find_prediction(results, *names) for names in wanted]
    lacking = [names for names, path in zip(wanted, found, strict=True) if path is None]
    if lacking:
        shown = ", ".join(
            sequence.name if len(sequence.frame_names) == 1 else f"{sequence.name}/{frame}"
            for sequence, frame in lacking[:_LISTED]
        )
        more = ", .." if len(lacking) > _LISTED else ""
        raise BadResults(f"{results} lacks results for {len(lacking)} of {len(wanted)}: {shown}{more}")
    return [path for path in found if path is not None]


def read_prediction(path: Path, frame_name: str, size: Sequence[int] | None = None) -> SoftMask:
    """A result as soft mask of the foreground, float32 [H, W].

    Object ids count as 1. Grey values are divided by 255, unless they are 0 and 1 only. Of several objects' soft masks
    the highest counts.

    Args:
        path: as `find_prediction` gives it.
        frame_name: of the frame.
        size: height and width, of a frame in whose finished sequence no object is seen.

    Raises:
        BadResults: it cannot be read, or holds no soft mask.
    """
    if path.is_dir():
        return _of_objects(path, frame_name, size)
    if path.suffix == ".png":
        return _of_image(path)
    values = _array(path)
    if values.ndim != 2 or not values.size or values.dtype.kind not in "fbu":
        raise BadResults(f"{path} is {values.dtype} {list(values.shape)}; a soft mask is float or uint8 [H, W]")
    soft = values.astype(np.float32) / np.float32(255 if values.dtype == np.uint8 and values.max() > 1 else 1)
    if not np.isfinite(soft).all():
        raise BadResults(f"{path} holds NaN or infinity")
    return soft


def require_size(soft: npt.NDArray[Any], size: Sequence[int], path: Path, truth: object) -> None:
    """Refuse a prediction that is not of the truth's size.

    Raises:
        BadResults: naming both.
    """
    if soft.shape != tuple(size):
        raise BadResults(
            f"{path} is {describe_size(soft.shape)}, {truth} is {describe_size(size)}; results must have its size"
        )


def require_unit_range(soft: SoftMask, path: Path) -> None:
    """Refuse values outside 0..1, of which a threshold would make nonsense.

    Raises:
        BadResults: naming the file.
    """
    if soft.min() < 0 or soft.max() > 1:
        raise BadResults(f"{path} holds values from {soft.min():g} to {soft.max():g}; soft masks are in 0..1")


def _of_objects(folder: Path, frame_name: str, size: Sequence[int] | None) -> SoftMask:
    ids = sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal() and path.is_dir())
    found = [soft for k in ids if (soft := read_soft_mask(folder, k, frame_name)) is not None]
    if not found and size is not None and _is_finished(folder):
        return np.zeros(size, np.float32)
    if not found:
        raise BadResults(f"{folder} holds no soft mask of frame {frame_name}")
    if len({soft.shape for soft in found}) > 1:
        raise BadResults(f"{folder} holds soft masks of several sizes for frame {frame_name}")
    highest: SoftMask = np.maximum.reduce(found)
    return highest


def _of_image(path: Path) -> SoftMask:
    with open_image(path, "result", BadResults) as image:
        if image.mode == "P":
            ids = np.asarray(image)
            return np.array((ids > 0) & (ids != VOID), np.float32)
        if image.mode.startswith("I"):
            return np.asarray(np.asarray(image) / 65535, np.float32)
        grey = np.asarray(image.convert("L") if image.mode in {"1", "L"} else image.convert("RGB").convert("L"))
    return np.asarray(grey / (255 if grey.max() > 1 else 1), np.float32)


def _array(path: Path) -> npt.NDArray[Any]:
    try:
        with open_file(path) as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            if len(loaded.files) != 1:
                raise BadResults(f"{path} holds {len(loaded.files)} arrays; it must hold one soft mask")
            array: npt.NDArray[Any] = loaded[loaded.files[0]]
            return array
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as reason:
        raise BadResults(f"soft mask {path} cannot be read: {reason}") from reason
