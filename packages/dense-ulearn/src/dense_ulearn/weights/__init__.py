"""Weights of the feature network: the file that comes with the package, and what the authors published."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from vos_shared.checkpoints.published import PublishedWeights, cache_folder, fetch
from vos_shared.errors import BadWeights

SHIPPED: Final = Path(__file__).with_name("dense_ulearn_demo.safetensors")
"""Weights trained by this package's own objective; what runs by default."""

UNTRAINED: Final = "untrained"
"""The name that asks for the network as it is initialised, seed 0."""

AUTHORS_PAGE: Final = "https://github.com/visinf/dense-ulearn-vos"


def _published(name: str, data: str, size: str, score: float) -> PublishedWeights:
    return PublishedWeights(
        name=name,
        url="",  # No address and no hash of the files themselves is confirmed; the authors' page links them.
        licence="Apache-2.0",
        source=AUTHORS_PAGE,
        scores={"DAVIS-2017 val J&F": score},
        note=f"trained on {data}; {name}.pth, about {size}",
    )


PUBLISHED: Final[dict[str, PublishedWeights]] = {
    entry.name: entry
    for entry in (
        _published("ytvos_e060_res4", "YouTube-VOS", "132 MB", 69.3),
        _published("trackingnet_e088_res4", "TrackingNet", "88 MB", 69.4),
        _published("kinetics_e026_res4", "Kinetics-400", "88 MB", 68.7),
        _published("oxuva_e430_res4", "OxUvA", "132 MB", 65.3),
    )
}
"""The snapshots of the paper's authors by name."""


def locate(weights: str | Path) -> Path:
    """The file behind a path or the name of published weights.

    Raises:
        BadWeights: no such file, or published weights that are not here.
    """
    path = Path(weights)
    if path.is_file():
        return path
    entry = PUBLISHED.get(str(weights))
    if entry is None:
        raise BadWeights(f"no weights file {weights}; known names are {', '.join([*PUBLISHED, UNTRAINED])}")
    cached = cache_folder() / f"{entry.name}.pth"
    if cached.is_file():
        return cached
    if entry.url:
        return fetch(entry)
    raise BadWeights(f"weights {entry.name} are not here: download them from {entry.source} and store them as {cached}")
