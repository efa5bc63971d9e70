"""What the tools see of the method; importing it does not import torch."""

from __future__ import annotations

from typing import Final

from vos_shared.method import Method, Supervision

SPN_INSTANCES: Final = Method(
    name="spn-instances",
    title="Instance segmentation with spatial propagation",
    paper="Cheng, Liu, Tsai, Hung, De Mello, Gu, Kautz, Wang, Yang, DAVIS Challenge 2017",
    supervision=Supervision.FIRST_FRAME,
    loader="spn_instances.inference:load",
    variants={
        "spn-instances": {},
        "spn-instances+online": {"online": True},
        "spn-instances-craf": {"craf": False},
        "spn-instances-spn": {"spn": False},
    },
)
"""The plain variant has no fine-tuned networks; the last two leave out a stage of it."""
