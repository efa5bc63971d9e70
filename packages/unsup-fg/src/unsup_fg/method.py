"""What the tools see of the teacher and the students; importing it does not import torch."""

from __future__ import annotations

from typing import Final

from vos_shared.method import Method, Supervision

VIDEOPCA: Final = Method(
    name="videopca",
    title="VideoPCA: foreground from the principal components of a shot",
    paper="Stretcu, Leordeanu, BMVC 2015; teacher of Croitoru, Bogolin, Leordeanu, ICCV 2017 and IJCV 2019",
    supervision=Supervision.NONE,
    loader="unsup_fg.inference:load",
)

UNSUP_FG: Final = Method(
    name="unsup-fg",
    title="Students that learned foreground from VideoPCA",
    paper="Croitoru, Bogolin, Leordeanu, ICCV 2017 and IJCV 2019",
    supervision=Supervision.NONE,
    loader="unsup_fg.students:load",
    variants={
        "unsup-fg": {},
        **{
            f"unsup-fg+{student}": {"student": student}
            for student in ("lowres", "basic-unet", "dense-unet", "dilate-unet", "multi", "multi-select")
        },
    },
)
"""Weights of one student come with the package; the other variants want ``--weights``."""
