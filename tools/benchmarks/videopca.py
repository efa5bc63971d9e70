"""VideoPCA beside its plain form, and beside an older revision of ours, in one run on the same cores.

The plain form is the method in NumPy and SciPy: float32, whole arrays, one step after another. Both take
decoded frames at the working size and end with soft masks.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor

from benchmarks._measure import Row, measured
from unsup_fg.videopca import soft_masks
from vos_shared.datasets.synthetic import clip
from vos_shared.runtime.memory import peak_memory_bytes, reset_peak
from vos_shared.video import Video

Array = npt.NDArray[Any]
Form = Callable[[Array, torch.device], Array]
"""From frames uint8 [T, H, W, 3] to soft masks uint8 [T, H, W]."""

MEBIBYTE = 2**20


def shot(video: str | None, count: int, size: int) -> Array:
    """Frames uint8 [T, size, size, 3] of a video, repeated if it is short, or of the synthetic clip."""
    source = clip(0, frames=min(count, 50), size=(size, size))[0] if video is None else Video.open(video)
    resized = [np.asarray(Image.fromarray(frame).resize((size, size), Image.Resampling.BICUBIC)) for frame in source]
    return np.stack([resized[index % len(resized)] for index in range(count)])


def plain_soft_masks(frames: Array, components: int = 3) -> Array:
    """Soft masks float32 [T, H, W] of frames uint8 [T, H, W, 3], as the method is written down."""
    colours = np.stack([_normalise(frame.astype(np.float32)) for frame in frames])
    height, width = frames.shape[1:3]
    data = colours.reshape(len(frames), -1).T  # a row for each pixel and colour, a column for each frame
    mean = data.mean(axis=0)
    vectors = np.linalg.eigh((data - mean).T @ (data - mean))[1][:, -components:]
    reconstruction = (data - mean) @ vectors @ vectors.T + mean
    error = _normalise(np.linalg.norm((data - reconstruction).T.reshape(colours.shape), axis=-1))
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    sigma = min(height, width) / 3
    prior = np.exp(((rows - (height - 1) / 2) ** 2 + (columns - (width - 1) / 2) ** 2) / np.float32(-2 * sigma**2))
    smoothed = (ndimage.gaussian_filter(frame, 5, mode="constant", radius=7) for frame in error)
    cue = np.stack([_normalise(frame * prior) > 0.5 for frame in smoothed])
    codes = _colour_codes(colours)
    inside = np.bincount(codes[cue], minlength=25_000)
    outside = np.bincount(codes[~cue], minlength=25_000) + 1
    foreground, background = inside / max(inside.sum(), 1), outside / outside.sum()
    likely = (foreground / (foreground + background)).astype(np.float32)[codes]
    return np.stack([_normalise(frame * _hysteresis(_normalise(frame * prior))) for frame in likely])


def _normalise(values: Array) -> Array:
    values = values - values.min()
    stretched: Array = values / (values.max() + np.float32(2.2e-16))
    return stretched


def _colour_codes(colours: Array) -> Array:
    red, green, blue = np.moveaxis(colours, -1, 0)
    value, low = colours.max(axis=-1), colours.min(axis=-1)
    spread = np.where(value > low, value - low, 1)
    blue_hue = 1 / 6 * (red - green) / spread + np.float32(2 / 3)
    green_hue = 1 / 6 * (blue - red) / spread + np.float32(1 / 3)
    hue = np.select([value == red, value == green], [1 / 6 * (green - blue) / spread, green_hue], blue_hue)
    angle = 2 * np.pi * np.where(hue < 0, hue + 1, hue)
    saturation = np.where(value > low, 1 - low / np.where(value > 0, value, 1), 0)
    hx, hy = (saturation * np.cos(angle) + 1) / 2, (saturation * np.sin(angle) + 1) / 2
    bins = (
        np.floor(levels * count + np.float32(0.5)).astype(int) for levels, count in ((hx, 99), (hy, 24), (value, 9))
    )
    hx_bin, hy_bin, value_bin = bins
    codes: Array = hx_bin + 100 * (hy_bin + 25 * value_bin)
    return codes


def _hysteresis(values: Array) -> Array:
    labels, _ = ndimage.label(values > 0.5, np.ones((3, 3)))
    kept: Array = np.isin(labels, np.unique(labels[values > 0.8]))
    return kept


def _ours(frames: Array, device: torch.device) -> Array:
    return _as_bytes(soft_masks(frames, device=device))


def _as_bytes(chunks: Iterable[Tensor]) -> Array:
    return np.concatenate([masks.mul(255).add(0.5).byte().cpu().numpy() for masks in chunks])


@dataclass(frozen=True)
class Before:
    """VideoPCA as a git revision has it, from the time when `soft_masks` took uint8 [T, 3, H, W].

    Attributes:
        revision: 305457d or older.
    """

    revision: str

    def __call__(self, frames: Array, device: torch.device) -> Array:
        """Soft masks."""
        planar = torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2))).to(device)
        return _as_bytes(_module_of(self.revision).soft_masks(planar))


@cache
def _module_of(revision: str) -> ModuleType:
    path = f"{revision}:packages/unsup-fg/src/unsup_fg/videopca.py"
    source = subprocess.run(
        ["git", "show", path], cwd=Path(__file__).parent, check=True, capture_output=True, text=True
    ).stdout
    module = ModuleType("videopca_before")
    sys.modules[module.__name__] = module  # Where dataclasses look for annotations.
    exec(compile(source, path, "exec"), module.__dict__)
    return module


def _plain(frames: Array, device: torch.device) -> Array:
    masks: Array = (255 * plain_soft_masks(frames) + 0.5).astype(np.uint8)
    return masks


def _working_memory(form: Form, frames: Array, device: torch.device) -> float:
    """MiB that a form needs beyond the decoded frames."""
    form(frames[:12, :32, :32], device)  # All libraries are loaded now.
    with suppress(OSError, AttributeError):  # glibc keeps freed memory; without this it would count as used.
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    reset_peak(device)
    before = peak_memory_bytes(device)
    form(frames, device)
    return (peak_memory_bytes(device) - before) / MEBIBYTE


def _in_a_process_of_its_own(form: Form, frames: Array, device: torch.device) -> float:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_working_memory, (form, frames, device))


def run(
    frames: int = 100,
    size: int = 300,
    video: str | None = None,
    repeats: int = 3,
    device: str = "cpu",
    memory: bool = True,
    before: str | None = None,
) -> list[Row]:
    """Measure VideoPCA on a shot, ours and the plain form in turns.

    Args:
        frames: of the shot.
        size: working size.
        video: file or folder of frames; by default the synthetic clip.
        repeats: the fastest counts, as others may use the machine.
        device: cpu or cuda, of ours; the plain form runs on the CPU.
        memory: also measure the memory, each form in a separate process.
        before: git revision whose VideoPCA is measured as well, 305457d or older.
    """
    decoded, target = shot(video, frames, size), torch.device(device)
    forms: dict[str, Form] = {"plain": _plain, "ours": _ours}
    if before is not None:
        forms[before] = Before(before)
    costs = [[measured(partial(form, decoded, target), target) for form in forms.values()] for _ in range(repeats)]
    walls, cpus = ([min(cost[j][i] for cost in costs) for j in range(len(forms))] for i in range(2))
    masks = [cost[2].astype(int) for cost in costs[0]]
    return [
        {
            "what": name,
            "frames/s": 1000 * frames / wall,
            "ms a frame": wall / frames,
            "times faster": walls[0] / wall,
            "CPU ms a frame": cpu / frames,
            "times faster (CPU)": cpus[0] / cpu,
            "working MiB": _in_a_process_of_its_own(form, decoded, target) if memory else None,
            "different pixels": float((np.abs(own - masks[0]) > 1).mean()),
        }
        for (name, form), wall, cpu, own in zip(forms.items(), walls, cpus, masks, strict=True)
    ]
