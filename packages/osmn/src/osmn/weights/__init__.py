"""Weights of the network: the file that comes with the package, and what the authors published."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from vos_shared.checkpoints.published import PublishedWeights, cache_folder
from vos_shared.errors import BadWeights

SHIPPED: Final = Path(__file__).with_name("osmn_lite_demo.safetensors")
"""Weights of variant lite, trained by this package; what runs by default."""

AUTHORS_PAGE: Final = "https://github.com/linjieyangsc/video_seg"


def _published(name: str, stage: str, scores: dict[str, float]) -> PublishedWeights:
    return PublishedWeights(
        name=name,
        url="",  # The authors' page links an archive; no address and no hash of the files themselves is confirmed.
        licence="Apache-2.0",
        source=AUTHORS_PAGE,
        scores=scores,
        note=f"{stage}; TensorFlow checkpoint {name}.*, 661 MB",
    )


PUBLISHED: Final[dict[str, PublishedWeights]] = {
    "train_coco": _published(
        "train_coco", "stage 1, COCO", {"DAVIS-2016 val J": 72.2, "DAVIS-2017 val J": 52.5, "DAVIS-2017 val J&F": 54.8}
    ),
    "ft_davis": _published(
        "ft_davis", "stage 2, DAVIS-2017 train", {"DAVIS-2016 val J": 74.0, "DAVIS-2016 val F": 72.9}
    ),
}
"""The checkpoints of the paper's authors by name. On DAVIS-2017 stage 1 is the better one."""


def locate(weights: str | Path | None) -> Path:
    """The file, or prefix of a TensorFlow checkpoint, behind what a user gave as weights; None is the shipped file.

    Raises:
        BadWeights: no such file, or published weights that are not here.
    """
    if weights is None:
        return SHIPPED
    entry = PUBLISHED.get(str(weights))
    if entry is None:
        return Path(weights)
    cached = cache_folder() / entry.name
    if any(cached.parent.glob(f"{entry.name}*.index")):
        return next(iter(sorted(cached.parent.glob(f"{entry.name}*.index")))).with_suffix("")
    raise BadWeights(
        f"weights {entry.name} are not here: download them from {entry.source} and store them as {cached}.index and "
        f"{cached}.data-00000-of-00001"
    )
