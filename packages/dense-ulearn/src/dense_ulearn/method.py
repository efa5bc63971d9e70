"""What the tools see of the method; importing it does not import torch."""

from __future__ import annotations

from typing import Final

from vos_shared.method import Method, Supervision

DENSE_ULEARN: Final = Method(
    name="dense-ulearn",
    title="Dense unsupervised learning for video segmentation",
    paper="Araslanov, Schaub-Meyer, Roth, NeurIPS 2021",
    supervision=Supervision.FIRST_FRAME,
    loader="dense_ulearn.inference:load",
    variants={
        "dense-ulearn": {},
        "dense-ulearn+res3": {"layer": "res3"},
        "dense-ulearn+key": {"layer": "key"},
        "dense-ulearn+untrained": {"baseline": True},
    },
)
