"""Detection of a collapse: one segment covers nearly all pixels, which no term of the loss prevents."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor

SHARE: Final = 0.95
"""Largest part of all pixels that one segment may hold."""
STEPS: Final = 500
"""Number of consecutive steps above `SHARE` after which a collapse is reported."""


class CollapseWatch:
    """Counts for how many consecutive steps one segment has held more than `SHARE` of the pixels.

    The counts stay on the device, so that no step waits for it; only `message` reads them.
    """

    def __init__(self) -> None:
        self._streak = torch.tensor(0)
        self._shares = torch.zeros(0)
        self._said = False

    def step(self, shares: Tensor) -> None:
        """Add the shares of all segments in a step, float [c]."""
        self._streak = torch.where(shares.max() > SHARE, self._streak.to(shares.device) + 1, 0)
        self._shares = shares.detach()

    def message(self) -> str | None:
        """One line when a collapse has lasted for `STEPS` steps, once for each collapse; otherwise None."""
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
        """What a resumed run needs."""
        return {"streak": self._streak.cpu(), "shares": self._shares.cpu(), "said": self._said}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._streak, self._shares, self._said = state["streak"], state["shares"], state["said"]
