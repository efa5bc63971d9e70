"""Selection of the soft masks that students learn from: the best of each data set (specification, section 3)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from unsup_fg.settings import CandidateName
from vos_shared.atomic import write_json
from vos_shared.errors import BadDataset, UserError
from vos_shared.files import read_json
from vos_shared.images import open_image

_ROUNDED: Final = 0.002
"""Share of pixels, at the edge of the ellipse, that rounding may move."""


@dataclass(frozen=True)
class Scored:
    """A soft mask and its score.

    Attributes:
        mask: path of its file relative to the folder of its data set, ``<sequence>/<frame>.png``.
        score: mean of the pixels that are not zero, 0 to 255.
    """

    mask: str
    score: float


@dataclass(frozen=True)
class SelectedSet:
    """The selected soft masks of one data set.

    Attributes:
        soft: folder of the soft masks.
        masks: number of all soft masks.
        empty: number of soft masks without an object, which are not ranked: empty ones, and those of VideoPCA for
            frames of one colour.
        kept: the selected soft masks, best first.
    """

    soft: str
    masks: int
    empty: int
    kept: tuple[Scored, ...]


def mask_score(soft_mask: npt.NDArray[np.uint8]) -> float:
    """Compute the mean of the pixels that are not zero; 0 for an empty mask."""
    pixels = soft_mask[soft_mask > 0]
    return float(pixels.mean()) if pixels.size else 0.0


def is_centre_ellipse(soft_mask: npt.NDArray[np.uint8]) -> bool:
    """Whether a soft mask of VideoPCA only shows where the centre prior is high, as that of a frame of one colour does.

    All pixels of such a frame, for example a black one between two shots, are equally likely foreground. The released
    algorithm makes the same mask of it: 255 inside of an ellipse, the highest score that there is.
    """
    height, width = soft_mask.shape
    different = (soft_mask > 0) != _centre_ellipse(height, width)
    return bool(np.isin(soft_mask, (0, 255)).all() and different.mean() < _ROUNDED)


@cache
def _centre_ellipse(height: int, width: int) -> npt.NDArray[np.bool_]:
    from unsup_fg.videopca import HYSTERESIS_LOW, centre_prior, normalise_frames_

    ellipse: npt.NDArray[np.bool_] = normalise_frames_(centre_prior(height, width)[None])[0].numpy() > HYSTERESIS_LOW
    return ellipse


def read_soft_mask(path: Path) -> npt.NDArray[np.uint8]:
    """Read a grey image as uint8 [H, W].

    Raises:
        BadDataset: the file is missing, damaged, or not 8-bit grey.
    """
    with open_image(path, "soft mask", BadDataset) as image:
        if image.mode != "L":
            raise BadDataset(
                f"soft mask {path} is a picture of mode {image.mode}, not 8-bit grey (L), as soft masks are"
            )
        return np.array(image)


def select(soft: Path, top: float) -> SelectedSet:
    """Select the best soft masks of a data set.

    Args:
        soft: folder with ``<sequence>/<frame>.png``.
        top: share of the masks with an object to select; at least one is selected.

    Raises:
        UserError: the share is not above 0 and up to 1.
        BadDataset: there are no masks, none has an object, or one cannot be read.
    """
    require_share(top)
    names = sorted(path.relative_to(soft).as_posix() for path in soft.glob("*/*.png") if path.name[0] != ".")
    if not names:
        raise BadDataset(f"{soft} has no soft masks (<sequence>/<frame>.png); write them with unsup-fg videopca --soft")
    scored = mask_scores(soft, names)
    ranked = best_first(item for item in scored if item.score)
    if not ranked:
        raise BadDataset(
            f"all {len(scored)} soft masks in {soft} are empty, or of frames of one colour; label other videos"
        )
    return SelectedSet(str(soft.resolve()), len(scored), len(scored) - len(ranked), tuple(best_share(ranked, top)))


def require_share(top: float, option: str = "--top") -> None:
    """Check a share.

    Raises:
        UserError: it is not above 0 and up to 1.
    """
    if not 0 < top <= 1:
        raise UserError(f"unsup-fg: {option} is {top}; give a share above 0, up to 1")


def mask_scores(soft: Path, names: Sequence[str]) -> list[Scored]:
    """Compute the scores of VideoPCA's soft masks in a folder; 0 for a mask without an object.

    Args:
        soft: the folder.
        names: names of the masks, ``<sequence>/<frame>.png``.

    Raises:
        BadDataset: a mask cannot be read.
    """

    def score(name: str) -> float:
        mask = read_soft_mask(soft / name)
        return 0.0 if is_centre_ellipse(mask) else mask_score(mask)

    with ThreadPoolExecutor() as pool:
        scores = pool.map(score, names)
        return [Scored(name, score) for name, score in zip(names, scores, strict=True)]


def best_first(masks: Iterable[Scored]) -> list[Scored]:
    """Sort masks by their scores, best first."""
    return sorted(masks, key=lambda item: (-item.score, item.mask))


def best_share(ranked: Sequence[Scored], top: float) -> Sequence[Scored]:
    """Take the first share of a ranking, at least one."""
    return ranked[: max(1, round(top * len(ranked)))]


def best_of_students(scores: Mapping[CandidateName, Sequence[Scored]], top: float) -> dict[CandidateName, list[Scored]]:
    """Take the first share of one ranking of the masks of all students.

    Args:
        scores: scores of EvalSeg-Net for the masks of each student.
        top: share of all masks that is taken; at least one is.

    Returns:
        The masks that were taken, best first, of each student.
    """
    ranked = sorted(
        ((item, name) for name, items in scores.items() for item in items),
        key=lambda pair: (-pair[0].score, pair[0].mask, pair[1]),
    )
    best = ranked[: max(1, round(top * len(ranked)))]
    return {name: [item for item, owner in best if owner == name] for name in scores}


def write_selection(path: Path, sets: list[SelectedSet]) -> None:
    """Write a selection as JSON."""
    write_json(path, {"sets": [asdict(found) for found in sets]})


def read_selection(path: Path) -> list[SelectedSet]:
    """Read what `write_selection` wrote.

    Raises:
        BadDataset: the file is missing, or is not a selection.
    """
    try:
        content: Any = read_json(path)
        return [
            SelectedSet(
                str(item["soft"]),
                int(item["masks"]),
                int(item["empty"]),
                tuple(Scored(str(one["mask"]), float(one["score"])) for one in item["kept"]),
            )
            for item in content["sets"]
        ]
    except FileNotFoundError:
        raise BadDataset(f"{path} does not exist; write it with unsup-fg select") from None
    except (ValueError, KeyError, TypeError) as reason:
        raise BadDataset(f"{path} is not a selection of unsup-fg select ({reason})") from reason
