"""Work on threads."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import torch

from vos_shared.runtime.workers import Workers

CPU = torch.device("cpu")


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_come_in_order(threads: int) -> None:
    def late(number: int) -> int:
        time.sleep(0.01 * (number % 3))
        return number

    with Workers(CPU) as workers:
        assert list(workers.map(late, range(20))) == list(range(20))


def test_torch_divides_no_operation_of_a_piece(threads: int) -> None:
    """Other threads keep torch's setting."""
    with Workers(CPU) as workers:
        inside = set(workers.map(lambda _: torch.get_num_threads(), range(8)))
    assert inside == {1}
    assert torch.get_num_threads() == threads


def test_what_a_piece_raises_comes_out(threads: int) -> None:
    def fail(number: int) -> None:
        raise ValueError(f"piece {number}")

    with pytest.raises(ValueError, match="piece 0"), Workers(CPU) as workers:
        workers.run(fail, range(20))


def test_pieces_are_not_all_done_ahead(threads: int) -> None:
    """Otherwise their results would fill the memory."""
    begun: list[int] = []
    with Workers(CPU) as workers:
        next(workers.map(begun.append, range(1000)))
        time.sleep(0.05)
        assert len(begun) <= 2 * threads + 1
