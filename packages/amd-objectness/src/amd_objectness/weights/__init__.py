"""Weights that have a name: the file that comes with the package, and the checkpoint that the authors published."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from vos_shared.checkpoints.published import PublishedWeights, WeightsTable

UNTRAINED: Final = "untrained"
"""Name of the paper's networks with their random start values, seed 0."""

WEIGHTS: Final = WeightsTable(
    published={
        "amd_pretrained": PublishedWeights(
            name="amd_pretrained",
            url="https://frontiers.blob.core.windows.net/pretraining/checkpoints/amd_pretrained.pth",
            licence="not stated here; see the page",
            source="https://github.com/rt219/The-Emergence-of-Objectness",
            note="trained on YouTube-VOS; its page calls channel 0 the foreground, its code keeps channel 1",
        )
    },
    shipped=Path(__file__).with_name("amd_objectness_demo.safetensors"),
    shipped_note="a narrow ResNet-18, trained by this package on few clips; the default",
    made={UNTRAINED: "the paper's networks as initialised, seed 0"},
)
"""The authors' checkpoint and our own file."""
