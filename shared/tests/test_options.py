from __future__ import annotations

import math
from dataclasses import dataclass

import pytest

from vos_shared.errors import UserError
from vos_shared.options import require_numbers


@dataclass
class Settings:
    steps: int | None = 1
    weight_decay: float = 0.0


@pytest.mark.parametrize(
    ("value", "bounds", "words"),
    [
        (-0.1, {"least": 0}, "method: --weight-decay is -0.1; it must be at least 0$"),
        (0, {"above": 0, "below": 1}, "it must be more than 0, less than 1$"),
        (1, {"least": 0, "below": 1}, "it must be at least 0, less than 1$"),
        (math.inf, {"least": 0}, "is inf; it must be at least 0, finite$"),
        (math.nan, {"above": 0}, "is nan; it must be more than 0, finite$"),
    ],
)
def test_numbers_outside_their_bounds_are_refused(value: float, bounds: dict[str, float], words: str) -> None:
    with pytest.raises(UserError, match=words):
        require_numbers(Settings(weight_decay=value), "method", "weight_decay", **bounds)


def test_numbers_at_their_bounds_and_none_pass() -> None:
    require_numbers(Settings(), "method", "steps", "weight_decay", least=0)
    require_numbers(Settings(steps=None, weight_decay=0.99), "method", "steps", "weight_decay", above=0, below=1)
