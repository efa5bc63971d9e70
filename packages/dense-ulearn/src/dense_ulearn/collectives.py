"""Gathering of anchors over processes, with gradient."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx


@dataclass(frozen=True)
class Ranks:
    """One process among the processes that train together.

    Attributes:
        rank: number of this process.
        world: number of processes.
    """

    rank: int = 0
    world: int = 1

    def gather(self, rows: Tensor) -> Tensor:
        """Rows [M, C] of every rank in rank order, [world * M, C]; gradient flows back to the rank that they come from.

        DDP averages the gradients over ranks; so a loss over gathered rows has the same gradient as in one process with
        the whole batch.
        """
        if self.world == 1:
            return rows
        gathered: Tensor = _Gather.apply(rows, self)
        return gathered


class _Gather(Function):
    @staticmethod
    def forward(ctx: FunctionCtx, rows: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks  # type: ignore[attr-defined]
        parts = [torch.empty_like(rows) for _ in range(ranks.world)]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        ranks: Ranks = ctx.ranks  # type: ignore[attr-defined]
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total.chunk(ranks.world)[ranks.rank], None
