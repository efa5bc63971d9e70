"""Weights of the networks that the authors published; none of ours come with the package yet."""

from __future__ import annotations

from typing import Final

from vos_shared.checkpoints.published import PublishedWeights, WeightsTable

WEIGHTS: Final = WeightsTable(
    published={
        "PN_ResNetF": PublishedWeights(
            name="PN_ResNetF",
            url="http://vllab.ucmerced.edu/ytsai/CVPR17/PN_ResNetF.caffemodel",
            licence="non-commercial research only",
            source="the official repository of Seg-with-SPN",
            note="parent foreground net, updated 03/2018, 1045 MB; the host may be gone",
        )
    },
    shipped=None,
)
"""The foreground nets. The authors published no refinement network."""
