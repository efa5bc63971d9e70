"""The method as the tools see it; importing it does not import torch."""

from __future__ import annotations

from typing import Final

from vos_shared.method import Method, Supervision

AMD_OBJECTNESS: Final = Method(
    name="amd-objectness",
    title="Appearance-motion decomposition",
    paper="Liu, Wu, Yu, Lin, NeurIPS 2021",
    supervision=Supervision.NONE,
    loader="amd_objectness.inference:load",
    variants={
        "amd-objectness": {},
        "amd-objectness+auto": {"channel": "auto"},
        "amd-objectness+adapt": {"adapt": True},
    },
)
