"""Label propagation of dense-ulearn beside its dense form, in one run on the same cores.

The dense form compares chunks of queries with all cells of all context frames at once, adds -1e10 outside the radius,
and takes the top k of everything: the definition as a few large matrix products.
"""

from __future__ import annotations

import ctypes
import multiprocessing
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks._measure import Row, measured
from dense_ulearn.networks import STRIDE
from dense_ulearn.propagation import LabelPropagation
from dense_ulearn.settings import PropagationSettings
from vos_shared.runtime.memory import peak_memory_bytes, reset_peak

MEBIBYTE = 2**20


@dataclass(frozen=True)
class Task:
    """What is measured: one step with a full context.

    Attributes:
        height, width: of the frames.
        channels: of the features.
        settings: of the propagation.
        objects: number of objects besides the background.
        device: of all tensors.
    """

    height: int
    width: int
    channels: int
    settings: PropagationSettings
    objects: int
    device: torch.device

    def frames(self, count: int) -> list[Tensor]:
        """Features that change slowly in space and time as those of a video do, unit length, [h, w, D]."""
        h, w = -(-self.height // STRIDE), -(-self.width // STRIDE)
        generator = torch.Generator().manual_seed(0)
        coarse = torch.randn(2, self.channels, h // 4 + 2, w // 4 + 2, generator=generator)
        start, end = F.interpolate(coarse, (h, w), mode="bicubic").to(self.device)
        steps = torch.linspace(0, 1, count).tolist()
        mixed = ((1 - step) * start + step * end for step in steps)
        noisy = (frame + 0.2 * torch.randn(frame.shape, generator=generator).to(self.device) for frame in mixed)
        return [F.normalize(frame, dim=0).permute(1, 2, 0).contiguous() for frame in noisy]

    def masks(self) -> Tensor:
        """Background and vertical bands of objects, [M, H, W]."""
        bands = torch.arange(self.width, device=self.device) * (self.objects + 1) // self.width
        return F.one_hot(bands.expand(self.height, -1)).permute(2, 0, 1).float()

    def label_map(self, labels: Tensor) -> Tensor:
        """Soft labels [h, w, M] to ids [H, W]."""
        full = F.interpolate(
            labels.permute(2, 0, 1)[None], (self.height, self.width), mode="bilinear", align_corners=True
        )
        return full[0].argmax(0)


class DenseForm:
    """The dense form; context and radius mask are prepared in advance.

    Args:
        context: features of the reference frame and the N latest frames, each [h, w, D].
        labels: their soft labels, each [h, w, M].
        settings: of the propagation.
        chunk: number of queries compared at once.
    """

    def __init__(self, context: list[Tensor], labels: list[Tensor], settings: PropagationSettings, chunk: int) -> None:
        height, width, channels = context[0].shape
        self.context = torch.stack(context).view(-1, channels)  # [n * h * w, D]
        self.labels = torch.stack(labels).view(len(self.context), -1)  # [n * h * w, M]
        cells = torch.cartesian_prod(torch.arange(height), torch.arange(width)).to(self.context)
        self.mask = (torch.cdist(cells, cells) >= settings.radius) * -1e10  # [h * w, h * w]
        self.settings, self.chunk = settings, chunk

    def step(self, features: Tensor) -> Tensor:
        """Soft labels [h, w, M] of a new frame [h, w, D]."""
        queries = features.flatten(0, 1)
        parts = [
            self._chunk(queries[start : start + self.chunk], self.mask[start : start + self.chunk])
            for start in range(0, len(queries), self.chunk)
        ]
        return torch.cat(parts).view(*features.shape[:2], -1)

    def _chunk(self, queries: Tensor, mask: Tensor) -> Tensor:
        similarity = queries @ self.context.T  # [q, n * h * w]
        similarity.view(len(queries), -1, mask.shape[1])[:, 1:] += mask[:, None]
        values, index = similarity.topk(self.settings.neighbours)
        weights = (values / self.settings.temperature).softmax(1)
        return (weights[..., None] * self.labels[index]).sum(1)


def start(task: Task, frames: list[Tensor]) -> tuple[LabelPropagation, list[Tensor]]:
    """Ours after some frames, and the labels of those."""
    masks = task.masks()
    propagation = LabelPropagation(task.settings, torch.float16 if task.device.type == "cuda" else torch.float32)
    labels = [propagation.step(frames[0], masks, range(len(masks)))]
    labels += [propagation.step(frame) for frame in frames[1:]]
    return propagation, labels


def working_memory(task: Task, chunk: int | None) -> int:
    """Bytes that one step needs beyond features and labels of the context; of the dense form if `chunk` is given."""
    with torch.inference_mode():
        *frames, query = task.frames(task.settings.context + 2)
        if chunk is None:
            step: Callable[[Tensor], Tensor] = start(task, frames)[0].step
            held = 0
        else:
            labels = [torch.rand(*frame.shape[:2], task.objects + 1, device=task.device) for frame in frames]
            form = DenseForm(frames, labels, task.settings, chunk)
            step, held = form.step, form.mask.nbytes
        del frames
        with suppress(OSError, AttributeError):  # glibc keeps freed memory; without this it would count as used.
            ctypes.CDLL("libc.so.6").malloc_trim(0)
        reset_peak(task.device)
        before = peak_memory_bytes(task.device)
        step(query)
        return peak_memory_bytes(task.device) - before + held


def _in_a_process_of_its_own(task: Task, chunk: int | None) -> float:
    """`working_memory` in MiB."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(working_memory, (task, chunk)) / MEBIBYTE


@torch.inference_mode()
def run(
    height: int = 480,
    width: int = 854,
    channels: int = 512,
    context: int = 20,
    objects: int = 2,
    repeats: int = 3,
    chunk: int = 400,
    device: str = "cpu",
    memory: bool = True,
) -> list[Row]:
    """Measure propagation to a frame with a full context, ours and the dense form in turns.

    Args:
        height: of the frames.
        width: of the frames.
        channels: 512 for res4, 256 for res3, 128 for key.
        context: latest frames searched; the reference frame comes on top.
        objects: besides the background.
        repeats: frames measured; the fastest counts, as others may use the machine.
        chunk: queries that the dense form compares at once.
        device: cpu or cuda.
        memory: also measure the memory of a step, each form in a separate process.
    """
    task = Task(height, width, channels, PropagationSettings(context=context), objects, torch.device(device))
    frames = task.frames(context + 1 + repeats)
    propagation, labels = start(task, frames[: context + 1])
    dense, ours, different = [], [], 0
    for number in range(context + 1, len(frames)):
        past = [0, *range(number - context, number)]
        form = DenseForm([frames[i] for i in past], [labels[i] for i in past], task.settings, chunk)
        *cost, expected = measured(partial(form.step, frames[number]), task.device)
        dense.append(cost)
        del form
        *cost, found = measured(partial(propagation.step, frames[number]), task.device)
        ours.append(cost)
        labels.append(found)
        different += int((task.label_map(expected) != task.label_map(found)).sum())
    needs = [_in_a_process_of_its_own(task, size) if memory else None for size in (chunk, None)]
    rows = zip(("dense form", "tiles"), (dense, ours), needs, (None, different), strict=True)
    return [
        {
            "what": name,
            "ms a frame": min(wall for wall, _ in costs),
            "times faster": min(wall for wall, _ in dense) / min(wall for wall, _ in costs),
            "CPU ms": min(cpu for _, cpu in costs),
            "times faster (CPU)": min(cpu for _, cpu in dense) / min(cpu for _, cpu in costs),
            "working MiB": need,
            "different pixels": wrong,
        }
        for name, costs, need, wrong in rows
    ]
