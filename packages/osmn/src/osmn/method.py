"""What the tools see of the method; importing it does not import torch."""

from __future__ import annotations

from typing import Final

from vos_shared.method import Method, Supervision

OSMN_METHOD: Final = Method(
    name="osmn",
    title="One-shot modulation network",
    paper="Yang, Wang, Xiong, Yang, Katsaggelos, CVPR 2018",
    supervision=Supervision.FIRST_FRAME,
    loader="osmn.inference:load",
    variants={"osmn": {}, "osmn+crf": {"crf": True}, "osmn+online": {"online": True}},
)
