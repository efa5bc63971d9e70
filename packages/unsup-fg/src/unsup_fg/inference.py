"""VideoPCA on videos: soft masks of whole videos, and the segmenter of the contract."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from unsup_fg.frame_file import FrameFile, SoftMask, check_space
from unsup_fg.videopca import PASSES, SHOT_BYTES, VideoPCASettings, soft_masks
from vos_shared.errors import BadVideo, UserError
from vos_shared.method import Frame, ModelInfo, ObjectMask, Segmentation, Segmenter
from vos_shared.options import settings_from
from vos_shared.processing import bar_hidden
from vos_shared.readahead import read_ahead
from vos_shared.runtime.device import choose_device, choose_precision
from vos_shared.steps import check_step
from vos_shared.video import Video


@dataclass(frozen=True)
class SegmenterSettings(VideoPCASettings):
    """Settings of `VideoPCASegmenter`.

    Attributes:
        threshold: soft mask at and above which a pixel is object 1.
    """

    threshold: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.threshold <= 1:
            raise UserError(f"videopca: threshold {self.threshold}; choose above 0, up to 1")


def video_soft_masks(
    video: Video,
    settings: VideoPCASettings | None = None,
    device: torch.device | None = None,
    advance: Callable[[int], object] = lambda frames: None,
) -> Iterator[SoftMask]:
    """Soft masks of a video at the working size, in order. The video counts as one shot and is decoded once.

    A long video is split into runs of nearly equal length. Memory does not grow with the video.

    Args:
        video: should have `SHORTEST_SHOT` frames or more, see `soft_masks`.
        settings: the paper's by default.
        device: where to compute; the CPU by default.
        advance: for progress, see `soft_masks`.

    Raises:
        BadVideo: a frame cannot be read.
        UserError: the folder for temporary files (TMPDIR) has too little space.
    """
    settings = settings or VideoPCASettings()
    runs = _run_lengths(len(video), settings.longest_run)
    pixels = math.prod(video.size) if settings.size is None else settings.size**2
    check_space(pixels * (SHOT_BYTES * max(runs) + len(video)))  # A soft mask has a byte a pixel.
    frames = read_ahead(_working_frames(video, settings.size))
    for length in runs:
        for masks in soft_masks(_next_frames(frames, length, video), settings.components, device, advance):
            yield from masks.mul_(255).add_(0.5).byte().cpu().numpy()


def _working_frames(video: Video, size: int | None) -> Generator[Frame, None, None]:
    for frame in video:
        yield (
            frame if size is None else np.asarray(Image.fromarray(frame).resize((size, size), Image.Resampling.BICUBIC))
        )


def _run_lengths(frames: int, longest: int) -> list[int]:
    """Lengths of the fewest runs that are nearly equal and not longer than `longest`."""
    runs = -(-frames // longest)
    return [frames // runs + (index < frames % runs) for index in range(runs)]


def _next_frames(frames: Iterator[Frame], length: int, video: Video) -> Iterator[Frame]:
    for _ in range(length):
        frame = next(frames, None)
        if frame is None:
            raise BadVideo(f"video {video.name} ended early; {len(video)} frames were counted before")
        yield frame


class VideoPCASegmenter(Segmenter):
    """Finds the moving foreground of a video, object 1, once it has seen the whole video.

    Soft masks of all frames are kept from `prepare` on at the working size, in a temporary file: 90 kB a frame at
    300 x 300, and 810 kB more a frame of the current run during `prepare`. Memory does not grow with the video.

    Example:
        segmenter = unsup_fg.inference.load()
        segmenter.prepare(video)
        masks = [segmenter.step(frame).mask for frame in video]
    """

    def __init__(self, settings: SegmenterSettings | None = None, device: torch.device | None = None) -> None:
        self.settings = settings or SegmenterSettings()
        self.device = device or torch.device("cpu")
        self.reset()

    @property
    def info(self) -> ModelInfo:
        """No parameters and no weights: nothing is trained."""
        return ModelInfo(parameters=0, weights="none needed", trained=False)

    @property
    def soft_masks(self) -> FrameFile:
        """Soft masks of the frames of the prepared video, at the working size."""
        if self._masks is None:
            raise UserError("videopca must see the whole video first; call prepare(video) before the first step")
        return self._masks

    def reset(self) -> None:
        """Forget the video."""
        self._masks: FrameFile | None = None
        self._next = 0

    def prepare(self, video: Video) -> None:
        """Compute the soft masks of all frames.

        Raises:
            BadVideo: a frame cannot be read.
            UserError: the folder for temporary files (TMPDIR) has too little space.
        """
        self.reset()
        self._size = video.size
        self._name = video.name
        with tqdm(
            total=PASSES * len(video), desc=f"VideoPCA {video.name}", unit="step", leave=False, disable=bar_hidden()
        ) as bar:
            for mask in video_soft_masks(video, self.settings, self.device, bar.update):
                if self._masks is None:
                    self._masks = FrameFile(mask.shape, np.uint8)
                self._masks.append(mask)

    def step(self, frame: Frame, prompt: ObjectMask | None = None, *, soft_masks: bool = False) -> Segmentation:
        """The mask of the next frame of the prepared video; see `vos_shared.method.Segmenter.step`.

        Args:
            frame: uint8 RGB [H, W, 3]; only its size is used.
            prompt: None or all zero.
            soft_masks: also return the soft mask, float32 [1, H, W].

        Raises:
            UserError: not prepared, a frame beyond the prepared video or of another size, or a prompted object.
        """
        masks = self.soft_masks
        self._check(frame, prompt)
        soft = np.asarray(Image.fromarray(masks[self._next]).resize(frame.shape[1::-1], Image.Resampling.BILINEAR))
        self._next += 1
        mask = (soft >= 255 * self.settings.threshold).astype(np.uint8)
        return Segmentation(mask, np.divide(soft[None], 255, dtype=np.float32) if soft_masks else None)

    def _check(self, frame: Frame, prompt: ObjectMask | None) -> None:
        if self._next >= len(self.soft_masks):
            raise BadVideo(
                f"video {self._name} was prepared with {len(self.soft_masks)} frames and this is one more; "
                "call reset and prepare for another video"
            )
        check_step(frame, prompt, self._size)
        if prompt is not None and prompt.any():
            raise UserError("videopca finds the foreground by itself and takes no objects; leave out the prompt")


def load(
    weights: str | Path | None = None,
    device: str = "auto",
    precision: str = "fp32",
    **options: Any,
) -> VideoPCASegmenter:
    """Build the segmenter.

    Args:
        weights: None; VideoPCA has no weights.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        precision: checked, but without effect: the colour bins need float32.
        options: fields of `SegmenterSettings`.

    Raises:
        UserError: weights given, unusable device or option.
    """
    if weights is not None:
        raise UserError(f"videopca has no weights; leave out {weights}")
    settings = settings_from(SegmenterSettings, options, "videopca")
    target = choose_device(device)
    choose_precision(precision, target)
    return VideoPCASegmenter(settings, target)
