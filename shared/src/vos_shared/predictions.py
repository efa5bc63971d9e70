"""Reading results of any program as soft masks of the foreground.

The result for a frame is `<sequence>/<frame>.png`; for an image (a sequence of one frame) also `<image>.png` in the
results folder. It is a palette PNG of object ids or a grey PNG with values 0..255, `npy`, or `npz` with one array.
Soft masks of objects as ``segment --soft-masks`` writes them, `<sequence>/<id>/<frame>.npy`, are read as well.
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
from vos_shared.tables import listed

if TYPE_CHECKING:
    from vos_shared.datasets.sequence import VideoSequence

_SUFFIXES: Final = (".png", ".npy", ".npz")


def find_prediction(results: Path, sequence: VideoSequence, frame_name: str) -> Path | None:
    """The file with the result for a frame, or the folder of a sequence with soft masks of objects."""
    folder = results / sequence.name
    stems = [folder / frame_name, *([folder] if len(sequence.frame_names) == 1 else [])]
    for stem in stems:
        for suffix in _SUFFIXES:
            if (path := stem.with_name(stem.name + suffix)).is_file():
                return path
    soft = folder.is_dir() and (any(folder.glob("[0-9]*/")) or _is_finished(folder))
    return folder if soft else None


def _is_finished(folder: Path) -> bool:
    """Whether `segment` wrote the soft masks of a sequence; if it found no object, the folder is empty."""
    return not any(folder.glob("*.png")) and (folder.parent / ".manifest" / f"{folder.name}.json").is_file()


def find_predictions(results: Path, frames: Iterable[tuple[VideoSequence, str]]) -> list[Path]:
    """The results for frames, given as pairs of sequence and frame name; see `find_prediction`.

    Raises:
        BadResults: no such folder, or results are missing.
    """
    if not results.is_dir():
        raise BadResults(f"no such results folder: {results}")
    wanted = list(frames)
    found = [find_prediction(results, *names) for names in wanted]
    lacking = [names for names, path in zip(wanted, found, strict=True) if path is None]
    if lacking:
        names = (item.name if len(item.frame_names) == 1 else f"{item.name}/{frame}" for item, frame in lacking)
        raise BadResults(f"{results} lacks results for {len(lacking)} of {len(wanted)}: {listed(names, most=5)}")
    return [path for path in found if path is not None]


def read_prediction(path: Path, frame_name: str, size: Sequence[int] | None = None) -> SoftMask:
    """Read a result as a soft mask of the foreground, float32 [H, W].

    Object ids become 1. Grey values are divided by 255, unless they are 0 and 1 only. Soft masks of several objects are
    combined by their maximum.

    Args:
        path: from `find_prediction`.
        frame_name: name of the frame.
        size: height and width of the zeros to return if `segment` found no object in the sequence.

    Raises:
        BadResults: the result cannot be read or is not a soft mask.
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
    """Raise `BadResults` unless a prediction has the size of the truth."""
    if soft.shape != tuple(size):
        raise BadResults(
            f"{path} is {describe_size(soft.shape)}, {truth} is {describe_size(size)}; results must have its size"
        )


def require_unit_range(soft: SoftMask, path: Path) -> None:
    """Raise `BadResults` if values are outside 0..1, for which a threshold is meaningless."""
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
