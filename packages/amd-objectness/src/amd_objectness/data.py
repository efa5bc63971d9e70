"""Training pairs: two frames of a video, resized and cropped alike (specification, 7.2).

Every random draw depends on (seed, step, slot) alone, so that a run can stop and resume anywhere, with any number of
reading processes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from amd_objectness.presets import Sampling
from vos_shared.errors import BadDataset
from vos_shared.method import Frame
from vos_shared.terminal import escaped
from vos_shared.training.batches import EpochOrder
from vos_shared.video import Video

LONGEST: Final = 9999
"""Largest length in pixels of a scaled frame's longer side, before it is multiplied by the factor of the shorter
side."""


def scaled_size(size: tuple[int, int], shorter: int, longest: int = LONGEST) -> tuple[int, int]:
    """Size of a frame whose shorter side is scaled to a length, with its aspect ratio, as the released code rounds it.

    Args:
        size: height and width of the frame.
        shorter: length of the shorter side after scaling.
        longest: largest length of the longer side after scaling; it takes precedence over `shorter`.
    """
    factor = min(shorter / min(size), longest / max(size))
    height, width = (max(int(side * factor + 0.5), 1) for side in size)
    return height, width


def pixels_of(frames: Sequence[Frame], size: tuple[int, int]) -> Tensor:
    """Resize frames, uint8 RGB [H, W, 3], to uint8 [B, 3, *size]: bilinear without antialiasing, as released."""
    stacked = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)  # [B, 3, H, W]
    if stacked.shape[2:] == size:
        return stacked.contiguous()
    resized = F.interpolate(stacked.float(), size, mode="bilinear", align_corners=False)
    pixels: Tensor = resized.add_(0.5).clamp_(0, 255).byte()
    return pixels


def draw_pair(length: int, gap: int, rng: np.random.Generator) -> tuple[int, int]:
    """Draw the two frames of a pair.

    A video is followed by itself in reverse, so that a pair may reach over its end; its last frame twice is one such
    pair, as released.

    Args:
        length: number of frames of the video, at least one.
        gap: largest distance between both frames, in frames.
        rng: draws both frames.
    """
    first = int(rng.integers(length))
    second = first + int(rng.integers(1, gap, endpoint=True))
    return first, min(second, max(2 * length - 1 - second, 0)) if second >= length else second


def changed_colours(pair: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    """Change brightness, contrast and saturation of a pair alike: uint8 [2, 3, H, W]."""
    brightness, contrast, saturation = rng.uniform(1 - strength, 1 + strength, 3)
    values = pair.float() * brightness
    grey = (values * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)
    values = (values - grey) * saturation + grey
    values = (values - grey.mean()) * contrast + grey.mean()
    pixels: Tensor = values.add_(0.5).clamp_(0, 255).byte()
    return pixels


class TrainingPairs(Dataset[Tensor]):
    """The pairs of a run by (step, slot); each pass visits the videos in a new random order.

    Args:
        videos: image files rather than video files, so that single frames are cheap to read.
        sampling: how two frames of a video become a pair.
        batch: pairs a step, over all processes.
        seed: of all random draws.
    """

    def __init__(self, videos: Sequence[Video], sampling: Sampling, batch: int, seed: int) -> None:
        self.videos, self.sampling = videos, sampling
        self._batch, self._seed = batch, seed
        self._order = EpochOrder(len(videos), seed)

    def __getitem__(self, key: tuple[int, int]) -> Tensor:
        """The pair at a slot of a step, uint8 [2, 3, S, S]."""
        step, slot = key
        epoch, place = divmod(step * self._batch + slot, len(self.videos))
        rng = np.random.default_rng((self._seed, 1, step, slot))
        video = self.videos[self._order(epoch, place)]
        frames = [video[index] for index in draw_pair(len(video), self.sampling.gap, rng)]
        return crop_pair(frames, self.sampling, rng)


def crop_pair(frames: Sequence[Frame], sampling: Sampling, rng: np.random.Generator) -> Tensor:
    """Resize two frames and crop a square at the same place of both; `Sampling.shift` moves the second one.

    Args:
        frames: uint8 RGB [H, W, 3], of one size.
        sampling: sizes and augmentations.
        rng: draws the factor, the place and the augmentations.

    Returns:
        uint8 [2, 3, S, S].
    """
    factor = rng.uniform(*sampling.scale)
    scaled = scaled_size(
        (frames[0].shape[0], frames[0].shape[1]), int(sampling.shorter_side * factor), int(LONGEST * factor)
    )
    crop = sampling.crop
    size = (max(scaled[0], crop), max(scaled[1], crop))
    places = [int(rng.integers(side - crop, endpoint=True)) for side in size]
    others = shifted(places, [side - crop for side in size], sampling.shift, rng)
    pair = torch.stack(
        [
            frame[:, top : top + crop, left : left + crop]
            for frame, (top, left) in zip(pixels_of(frames, size), (places, others), strict=True)
        ]
    )
    if sampling.flip and rng.random() < 0.5:
        pair = pair.flip(3)
    if sampling.colour:
        pair = changed_colours(pair, sampling.colour, rng)
    return pair.contiguous()


def shifted(places: Sequence[int], most: Sequence[int], shift: int, rng: np.random.Generator) -> list[int]:
    """Draw a place at most `shift` pixels from the given one, along each axis from 0 to `most`.

    With a shift of 0 nothing is drawn, so that the released sampling keeps its sequence of random numbers.
    """
    if not shift:
        return list(places)
    return [
        int(rng.integers(max(place - shift, 0), min(place + shift, end), endpoint=True))
        for place, end in zip(places, most, strict=True)
    ]


def usable(videos: Iterable[Video]) -> list[Video]:
    """The videos of two frames or more; prints one line about the others, which make no pair.

    Raises:
        BadDataset: no video has two frames.
    """
    found = list(videos)
    kept = [video for video in found if len(video) > 1]
    left_out = [video for video in found if video not in kept]
    some = ", ".join(video.name for video in left_out[:3]) + (", .." if left_out[3:] else "")
    if not kept:
        raise BadDataset(f"training: no video has two frames, which a pair needs: {some or 'there is none'}")
    if left_out:
        print(escaped(f"training: left out {len(left_out)} videos of a single frame: {some}"), file=sys.stderr)
    return kept
