"""Weights: the small networks that come with the package, and what the authors published."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from vos_shared.checkpoints.published import PublishedWeights, WeightsTable

_REFINEMENT_FILE: Final = Path(__file__).with_name("spn_refinement_demo.safetensors")
_REFINEMENT_NOTE: Final = "small refinement network (SPN), trained by this package; the default of --spn-weights"

REFINEMENT: Final = WeightsTable(published={}, shipped=_REFINEMENT_FILE, shipped_note=_REFINEMENT_NOTE)
"""The refinement networks; the authors published none."""
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
    shipped=Path(__file__).with_name("spn_parent_demo.safetensors"),
    shipped_note="parent foreground net on MobileNet-v1, trained by this package; the default",
    more={_REFINEMENT_FILE: _REFINEMENT_NOTE},
)
"""All weights that have a name; the default is the foreground net."""
