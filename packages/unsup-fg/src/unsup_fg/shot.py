"""Stores the frames of a shot on disk, so that memory does not grow with the shot."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import numpy as np
import torch
from torch import Tensor

from unsup_fg.frame_file import FrameFile
from vos_shared.method import Frame

EPSILON: Final = 2.2e-16
"""Added to divisors, as in the group's releases."""
_DEVICE_FRAMES: Final = 8
"""Frames that a GPU processes at once."""
_TILE_VALUES: Final = 1 << 18
"""Values of the data matrix that a thread processes at once; as float32 they fit into the cache."""
_BLOCK_TILES: Final = 16
"""Tiles that are read at once, because tiles of long shots are narrow and many short reads are slow."""
_STRIP_PIXELS: Final = 1 << 15
"""Pixels of a frame whose colours a thread processes at once; all arrays for that fit into the cache."""


def unseen(frames: int) -> None:
    """Report no progress."""


class Shot:
    """The frames of a shot in a temporary file, as rows of the transposed data matrix D^T.

    Args:
        frames: uint8 RGB [H, W, 3], at least one.
        device: device to compute on; the CPU by default.
        advance: called with 1 after each frame.

    Attributes:
        size: height and width.
    """

    def __init__(
        self, frames: Iterable[Frame], device: torch.device | None = None, advance: Callable[[int], object] = unseen
    ) -> None:
        self.device = device or torch.device("cpu")
        statistics = []
        for index, frame in enumerate(frames):
            if index == 0:
                self.size: tuple[int, int] = frame.shape[:2]
                self._frames = FrameFile((3, *self.size), np.uint8)
            planes = np.ascontiguousarray(frame.transpose(2, 0, 1))
            self._frames.append(planes)
            rows = planes.sum(2, dtype=np.uint32)  # Several times faster than with 64 bits.
            statistics.append((int(planes.min()), int(planes.max()), int(rows.sum(dtype=np.int64))))
            advance(1)
        low, high, total = torch.tensor(statistics, dtype=torch.float64).unbind(1)  # [T] each
        self._low, self._span = low.float().to(self.device), (high - low).float().add_(EPSILON).to(self.device)
        self._mean = (total / self.values).float().to(self.device)

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def values(self) -> int:
        """Number of rows of D: pixels times colours."""
        return 3 * math.prod(self.size)

    def parts(self) -> Iterator[slice]:
        """Divide the frames into parts that are processed at once, in steps where frames are independent."""
        step = 1 if self.device.type == "cpu" else _DEVICE_FRAMES  # The arrays of one frame stay in the cache.
        return _divided(slice(0, len(self)), step)

    def blocks(self) -> Iterator[slice]:
        """Divide the pixels into blocks that are read at once, in steps where pixels are independent."""
        return _divided(slice(0, math.prod(self.size)), _BLOCK_TILES * self._tile_width)

    def tiles(self, block: slice) -> Iterator[tuple[slice, Tensor]]:
        """Read a block of pixels tile by tile: the pixels of each tile within the block, and their part of D^T.

        That part is float32 [T, 3, p]: frames stretched to 0..1, minus their mean. The next tile overwrites it.
        """
        frames = torch.from_numpy(self._frames.columns(block)).to(self.device)  # [T, 3, P]
        memory = torch.empty(3 * len(self) * self._tile_width, device=self.device)
        for pixels in _divided(slice(0, frames.shape[2]), self._tile_width):
            part = frames[..., pixels]
            tile = memory[: part.numel()].view(part.shape).copy_(part)
            # The minimum cancels out: (x - low) / span - (mean - low) / span = (x - mean) / span.
            yield pixels, tile.sub_(self._mean[:, None, None]).mul_(self._span.reciprocal()[:, None, None])

    @property
    def _tile_width(self) -> int:
        return max(85, _TILE_VALUES // (3 * len(self)))

    def strips(self, part: slice) -> Iterator[tuple[slice, Tensor]]:
        """Read frames strip by strip: the pixels of each strip and their colours, stretched to 0..1.

        The colours are float32 [t, 3, p].
        """
        frames = torch.from_numpy(self._frames.read(part)).to(self.device).flatten(2)  # [t, 3, P]
        low, span = self._low[part, None, None], self._span[part, None, None]
        step = _STRIP_PIXELS if self.device.type == "cpu" else frames.shape[2]
        for pixels in _divided(slice(0, frames.shape[2]), step):
            yield pixels, frames[..., pixels].float().sub_(low).div_(span)

    def mean(self, part: slice) -> Tensor:
        """Mean of each of the stretched frames, float32 [t]."""
        return (self._mean[part] - self._low[part]) / self._span[part]


def _divided(indices: slice, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, indices.stop)) for start in range(indices.start, indices.stop, step))
