"""Weights of the networks: the files that come with the package, and what the authors published."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from vos_shared.checkpoints.published import PublishedWeights, WeightsTable

EVALSEG: Final = Path(__file__).with_name("unsup_fg_evalseg_demo.safetensors")
"""EvalSeg-Net that comes with the package."""
_PAGE: Final = "https://github.com/ioanacroi/unsup-learning-from-video"

WEIGHTS: Final = WeightsTable(
    published={
        "iccv": PublishedWeights(
            name="iccv",
            url="",
            licence="not stated here; see the page",
            source="https://drive.google.com/file/d/1e2-LEvSCIirFKt-iKZvVHu7QbGDbbE36",
            scores={"YouTube-Objects v1 CorLoc": 62.1},
            note="LowRes-Net of the first iteration, TensorFlow checkpoint, 312 MB; the figure is quoted from memory",
        ),
        "evalseg": PublishedWeights(
            name="evalseg",
            url="",
            licence="not stated here; see the page",
            source=_PAGE,
            note="EvalSeg-Net, TensorFlow checkpoint; the page promised it when this was written",
        ),
    },
    shipped=Path(__file__).with_name("unsup_fg_demo.safetensors"),
    shipped_note="narrow DilateU-Net of the first iteration, trained by this package; the default",
    more={EVALSEG: "narrow EvalSeg-Net, trained by this package; the default of score"},
)
"""The checkpoints of the paper's authors and our own."""
