"""Weights of the feature network: the file that comes with the package, and what the authors published."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from vos_shared.checkpoints.published import PublishedWeights, WeightsTable

UNTRAINED: Final = "untrained"
"""Name of the network as initialised, seed 0."""

_SNAPSHOTS: Final = "https://download.visinf.tu-darmstadt.de/data/2021-neurips-araslanov-vos/snapshots"


def _published(name: str, data: str, size: str, md5_ends: tuple[str, str], score: float) -> PublishedWeights:
    return PublishedWeights(
        name=name,
        url=f"{_SNAPSHOTS}/{name}.pth",
        licence="Apache-2.0",
        source="https://github.com/visinf/dense-ulearn-vos",
        md5_ends=md5_ends,  # The authors' page shows only the first and last five digits.
        scores={"DAVIS-2017 val J&F": score},
        note=f"trained on {data}, {size}",
    )


WEIGHTS: Final = WeightsTable(
    published={
        entry.name: entry
        for entry in (
            _published("ytvos_e060_res4", "YouTube-VOS", "132 MB", ("c3ae3", "55faf"), 69.3),
            _published("trackingnet_e088_res4", "TrackingNet", "88 MB", ("3e7e9", "95fa9"), 69.4),
            _published("kinetics_e026_res4", "Kinetics-400", "88 MB", ("086db", "a7d98"), 68.7),
            _published("oxuva_e430_res4", "OxUvA", "132 MB", ("af541", "d09b3"), 65.3),
        )
    },
    shipped=Path(__file__).with_name("dense_ulearn_demo.safetensors"),
    made={UNTRAINED: "the network as initialised, seed 0"},
)
"""Snapshots of the paper's authors, and weights trained by this package."""
