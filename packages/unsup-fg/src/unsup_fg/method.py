"""What the tools see of VideoPCA; importing it does not import torch."""

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
