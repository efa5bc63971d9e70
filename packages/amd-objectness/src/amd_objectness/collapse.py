"""Watches whether one segment swallows the images: no term of the loss prevents it."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor

SHARE: Final = 0.95
"""Part of all pixels above which a segment holds too much."""
STEPS: Final = 500
"""Steps in a row after which this is said."""


class CollapseWatch:
    """Counts for how many steps in a row one segment has held more than `SHARE` of the pixels.

    Its numbers stay on the device, which is not waited for; `message` reads them.
    """

    def __init__(self) -> None:
        self._streak = torch.tensor(0)
        self._shares = torch.zeros(0)
        self._said = False

    def step(self, shares: Tensor) -> None:
        """Take the shares of all segments in a step, float [c]."""
        self._streak = torch.where(shares.max() > SHARE, self._streak.to(shares.device) + 1, 0)
        self._shares = shares.detach()

    def message(self) -> str | None:
        """One line when `STEPS` steps are full, once for each collapse; None before, and after it was said."""
        streak = int(self._streak)
        if streak < STEPS:
            self._said = False
            return None
        if self._said:
            return None
        self._said = True
        segment = int(self._shares.argmax()) + 1
        return f"collapse: segment {segment} has held more than {SHARE:.0%} of the pixels for {streak} steps"

    def state_dict(self) -> dict[str, Any]:
        """For a run that goes on."""
        return {"streak": self._streak.cpu(), "shares": self._shares.cpu(), "said": self._said}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Undo `state_dict`."""
        self._streak, self._shares, self._said = state["streak"], state["shares"], state["said"]
