"""Clips for the contract tests, and measuring the memory that a method holds."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import torch

from vos_shared.method import Frame, ObjectMask, Segmentation, Segmenter
from vos_shared.video import Video

SIZE: Final = (64, 80)
"""Height and width of most clips: small, but several cells of any feature network."""

Prompts = Mapping[int, ObjectMask]
"""Prompts by the index of their frame."""


def clip(frames: int = 5, size: tuple[int, int] = SIZE, seed: int = 0, leaves: bool = False) -> tuple[Frame, Frame]:
    """Two textured squares, ids 1 and 2, that move over a textured background.

    Args:
        frames: number T of frames.
        size: height and width.
        seed: seed of the textures.
        leaves: whether object 1 disappears half-way.

    Returns:
        Frames uint8 [T, H, W, 3] and masks uint8 [T, H, W].
    """
    random = np.random.default_rng(seed)
    height, width = size
    side = min(size) // 3
    background = random.integers(0, 120, (height, width, 3), dtype=np.uint8)
    textures = random.integers(100, 256, (2, side, side, 3), dtype=np.uint8)
    images, masks = np.tile(background, (frames, 1, 1, 1)), np.zeros((frames, *size), np.uint8)
    for t in range(frames):
        for k, (top, left) in enumerate(((2 + t % 5, 3 + t % 7), (height - side - 2, width - side - 2 - t % 6))):
            if k == 0 and leaves and t >= frames // 2:
                continue
            images[t, top : top + side, left : left + side] = textures[k]
            masks[t, top : top + side, left : left + side] = k + 1
    return images, masks


def run(
    segmenter: Segmenter, frames: Sequence[Frame] | Frame, prompts: Prompts, *, soft_masks: bool = False
) -> list[Segmentation]:
    """Segment a clip, after `reset` and `prepare`."""
    segmenter.reset()
    segmenter.prepare(Video.open(np.asarray(frames)))
    return [segmenter.step(frame, prompts.get(t), soft_masks=soft_masks) for t, frame in enumerate(frames)]


class Segment(Protocol):
    """Type of `run`."""

    def __call__(
        self, segmenter: Segmenter, frames: Frame, prompts: Prompts, *, soft_masks: bool = False
    ) -> list[Segmentation]:
        """Segment a clip, after `reset` and `prepare`."""


def masks_of(segmentations: Sequence[Segmentation]) -> npt.NDArray[np.uint8]:
    """All masks, uint8 [T, H, W]."""
    return np.stack([segmentation.mask for segmentation in segmentations])


@contextmanager
def tracing() -> Iterator[None]:
    """Trace the allocations of Python and NumPy in the block."""
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


def held_bytes() -> int:
    """Memory in bytes that Python and NumPy hold since `tracing` began, and that of all tensors."""
    gc.collect()
    storages: dict[int, int] = {storage.data_ptr(): storage.nbytes() for storage in _storages()}
    traced, _ = tracemalloc.get_traced_memory()
    return traced + sum(storages.values())


def _storages() -> Iterator[Any]:
    for thing in gc.get_objects():
        if type(thing) in {torch.Tensor, torch.nn.Parameter}:
            yield thing.untyped_storage()
