"""Segmentation of a frame and a training step, each in turns with the same networks in their literal form.

Literal is what the released code computes: each direction by itself, one displacement of the correlation after the
other, pooled vectors repeated over the whole map, average pooling for the boxes of SSIM, and the dense flow with its
loss and the smoothness terms, which training does not use. Ours is what the commands do: a training step has quick
convolutions, a fused Adam and memory that the process keeps. Training runs in two processes, as either form leaves
free memory behind that the other would use.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context
from typing import ClassVar
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Adam

from amd_objectness import losses
from amd_objectness.inference import SegmentNetwork
from amd_objectness.losses import Objective, view_synthesis_loss
from amd_objectness.networks import AMD
from amd_objectness.networks.motion import MotionNetwork
from amd_objectness.presets import Optimisation
from amd_objectness.settings import Architecture, BackboneName
from amd_objectness.ssim import C1, C2
from amd_objectness.warping import resize, warp
from benchmarks._measure import Clock, Row
from vos_shared.layers.quick_convolutions import use_quick_convolutions
from vos_shared.runtime.device import choose_device
from vos_shared.runtime.memory import freed_memory_kept, peak_memory_bytes, reset_peak


def literal_correlation(first: Tensor, second: Tensor) -> Tensor:
    """One displacement after the other."""
    height, width = first.shape[2:]
    padded = F.pad(second, (4, 4, 4, 4))
    moved = [padded[:, :, dy : dy + height, dx : dx + width] for dy in range(9) for dx in range(9)]
    return torch.cat([(first * other).mean(1, keepdim=True) for other in moved], 1)


def literal_flow(net: MotionNetwork, own: list[Tensor], other: list[Tensor], masks: Tensor) -> list[list[Tensor]]:
    """Segment flow and dense flow of one direction, finest first."""
    estimator = net.flow_estimators
    sums: list[Tensor] = []
    flows: list[Tensor] = []
    wholes: list[Tensor] = []
    for level, (mine, theirs) in enumerate(zip(own, other, strict=True)):
        size = (mine.shape[2], mine.shape[3])
        if level:
            flow, whole = resize(2 * flows[-1], size), resize(2 * wholes[-1], size)
            sums = [resize(2 * item, size) for item in sums]
            theirs = warp(theirs, flow)
        else:
            flow = whole = mine.new_zeros(len(mine), 2, *size)
            sums = [flow] * masks.shape[1]
        volume = F.leaky_relu(literal_correlation(mine, theirs), 0.1)
        found = estimator(torch.cat([volume, net.conv_1x1[level](mine), flow], 1))
        segments = resize(masks, size)
        for index, segment in enumerate(segments.split(1, 1)):
            pooled = (found * segment).sum((2, 3), keepdim=True) / segment.sum((2, 3), keepdim=True)
            sums[index] = sums[index] + estimator.flow(pooled.expand_as(found))
        flows.append(torch.stack([own_sum * segments[:, i, None] for i, own_sum in enumerate(sums)]).sum(0))
        wholes.append(whole + estimator.flow(found))
    return [[resize(4 * f, (4 * f.shape[2], 4 * f.shape[3])) for f in reversed(kind)] for kind in (flows, wholes)]


def literal_distance(made: Tensor, images: Tensor) -> Tensor:
    """(1 - SSIM) / 2 of each image, by average pooling."""
    mean1, mean2, square1, square2, product = (
        F.avg_pool2d(maps, 3, 1) for maps in (made, images, made**2, images**2, made * images)
    )
    over = (2 * mean1 * mean2 + C1) * (2 * (product - mean1 * mean2) + C2)
    under = (mean1**2 + mean2**2 + C1) * (square1 - mean1**2 + square2 - mean2**2 + C2)
    return ((1 - over / under) / 2).clamp(0, 1).mean((1, 2, 3))


def smoothness(flow: Tensor, images: Tensor) -> Tensor:
    """First order, edge-aware; computed by the released code and then not used."""
    terms = []
    for axis in (2, 3):
        edges = images.diff(dim=axis).abs().mean(1, keepdim=True)
        terms.append((flow.diff(dim=axis).abs() * torch.exp(-10 * edges)).mean())
    return torch.stack(terms).mean()


def literal_loss(model: AMD, pairs: Tensor) -> Tensor:
    """The training loss, with everything that the released code computes besides."""
    logits = model(pairs.flatten(0, 1))
    masks = logits.softmax(1).unflatten(0, pairs.shape[:2])
    images = [resize(pairs[:, index], model.architecture.motion_size) for index in (0, 1)]
    first, second = (model.motion.feature_pyramid_extractor(image) for image in images)
    forward = literal_flow(model.motion, first, second, masks[:, 1])
    backward = literal_flow(model.motion, second, first, masks[:, 0])
    found = []
    for one, other in zip(forward, backward, strict=True):  # The segment flow, then the dense flow.
        flows = [torch.cat(both) for both in zip(one, other, strict=True)]
        found.append(view_synthesis_loss(torch.cat(images), flows))
        for flow in flows[:4]:
            smoothness(flow, F.interpolate(torch.cat(images), flow.shape[2:], mode="area"))
    return found[0]


def run(
    backbone: BackboneName = "resnet50",
    height: int = 480,
    width: int = 854,
    crop: int = 384,
    batch: int = 2,
    motion_size: tuple[int, int] = (384, 640),
    repeats: int = 10,
    device: str = "cpu",
) -> list[Row]:
    """Segment a frame, and train on pairs, in turns with the literal form.

    Args:
        backbone: of the appearance network.
        height: of the frame.
        width: of the frame.
        crop: side of the training pairs.
        batch: number of pairs; the release trains on two a GPU.
        motion_size: height and width of the motion network's input.
        repeats: of each; the fastest counts.
        device: cpu or cuda.
    """
    model = _model(backbone, motion_size)
    rows = _frame(model.to(choose_device(device)), height, width, repeats, choose_device(device))
    return [*rows, *_steps(partial(_Training, backbone, motion_size, crop, batch, device), repeats)]


def _model(backbone: BackboneName, motion_size: tuple[int, int]) -> AMD:
    torch.manual_seed(0)
    return AMD(Architecture(backbone, motion_size=motion_size))


@torch.inference_mode()
def _frame(model: AMD, height: int, width: int, repeats: int, target: torch.device) -> list[Row]:
    frame = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    model.eval()
    network = SegmentNetwork(model, 392, target)
    images = network.images([frame]).contiguous()
    ours, literal = Clock(target), Clock(target)
    for _ in range(repeats):
        found = ours.time(partial(network.logits, [frame]))
        expected = literal.time(partial(model, images))
    difference = float((found - expected).abs().max())
    return [
        {**ours.row("frame"), "difference": difference, "times faster": min(literal.cpu) / min(ours.cpu)},
        literal.row("  literal form"),
    ]


class _Training:
    """One form of training, in a process of its own."""

    own: ClassVar[_Training]

    def __init__(
        self, backbone: BackboneName, motion_size: tuple[int, int], crop: int, batch: int, device: str, literal: bool
    ) -> None:
        target, self.literal = choose_device(device), literal
        self._form = ExitStack()
        if literal:
            self._form.enter_context(patch.object(losses, "structural_distance", literal_distance))
        else:
            self._form.enter_context(freed_memory_kept(target))
        self.model = _model(backbone, motion_size).to(target).train()
        self.model.decode_head2.dropout.p = 0
        if not literal:
            use_quick_convolutions(self.model.to(memory_format=torch.channels_last))
        rates = Optimisation()
        self.optimiser = Adam(self.model.parameters(), rates.lr, weight_decay=rates.weight_decay, fused=not literal)
        self.clock = Clock(target)
        coarse = torch.rand(2 * batch, 3, crop // 8, crop // 8, device=target)
        self.pairs = F.interpolate(coarse, (crop, crop), mode="bicubic").clamp(0, 1).unflatten(0, (batch, 2))
        reset_peak(target)
        _Training.own = self

    def update(self) -> float:
        """One step; returns its loss."""
        loss = literal_loss(self.model, self.pairs) if self.literal else Objective(self.model)(self.pairs).loss
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        return loss.item()


def _timed_update() -> float:
    own = _Training.own
    return own.clock.time(own.update)


def _measured() -> tuple[Clock, int]:
    """Times of all steps, and the peak of the memory."""
    clock = _Training.own.clock
    return clock, peak_memory_bytes(clock.device)


def _steps(start: Callable[[bool], _Training], repeats: int) -> list[Row]:
    with ExitStack() as stack:
        ours, literal = (
            stack.enter_context(ProcessPoolExecutor(1, get_context("spawn"), initializer=start, initargs=(form,)))
            for form in (False, True)
        )
        found = [[form.submit(_timed_update).result() for form in (ours, literal)] for _ in range(repeats)]
        (clock, peak), (literal_clock, literal_peak) = (form.submit(_measured).result() for form in (ours, literal))
    difference = max(abs(one - other) for one, other in found)
    faster = min(literal_clock.cpu) / min(clock.cpu)
    row = {**clock.row("training step"), "difference": difference, "times faster": faster, "peak MiB": peak / 2**20}
    return [row, {**literal_clock.row("  literal form"), "peak MiB": literal_peak / 2**20}]
