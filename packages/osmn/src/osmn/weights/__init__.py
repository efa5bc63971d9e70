"""Weights of the network: the file that comes with the package, and what the authors published."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from vos_shared.checkpoints.published import PublishedWeights, WeightsTable

_FOLDER: Final = "https://www.dropbox.com/sh/6i5mgicuzmhart2/AACMO_C5guWcRHUD8K3ZHCV9a"
"""A shared folder for browsers; a plain download does not fetch it."""


def _published(name: str, stage: str, scores: dict[str, float]) -> PublishedWeights:
    return PublishedWeights(
        name=name,
        url="",
        licence="Apache-2.0",
        source=_FOLDER,
        scores=scores,
        note=f"{stage}; TensorFlow checkpoint {name}.*, 661 MB",
    )


WEIGHTS: Final = WeightsTable(
    published={
        entry.name: entry
        for entry in (
            _published(
                "train_coco",
                "stage 1, COCO",
                {"DAVIS-2016 val J": 72.2, "DAVIS-2017 val J": 52.5, "DAVIS-2017 val J&F": 54.8},
            ),
            _published("ft_davis", "stage 2, DAVIS-2017 train", {"DAVIS-2016 val J": 74.0, "DAVIS-2016 val F": 72.9}),
        )
    },
    shipped=Path(__file__).with_name("osmn_lite_demo.safetensors"),
    shipped_note="variant lite, trained by this package; the default",
)
"""Checkpoints of the paper's authors, and ours. On DAVIS-2017 stage 1 is better than stage 2."""
