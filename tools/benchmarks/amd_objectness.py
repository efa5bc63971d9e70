"""Segmentation of a frame and a training step, each in turns with the same networks in their literal form.

Literal is what the released code computes: each direction by itself, one displacement of the correlation after the
other, pooled vectors repeated over the whole map, average pooling for the boxes of SSIM, and the dense flow with its
loss and the smoothness terms, which training does not use. Ours is what the commands do: a training step has quick
convolutions, a fused Adam and memory that the process keeps. Each form has a process of its own, as it leaves free
memory behind that the other would use.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context
from typing import ClassVar, Final
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
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
    frame = partial(_segmentation, backbone, motion_size, height, width, device)
    step = partial(_training, backbone, motion_size, crop, batch, device)
    return [*_in_turns("frame", frame, device, repeats), *_in_turns("training step", step, device, repeats)]


Work = Callable[[], npt.NDArray[np.float32]]
_FORM: Final = ExitStack()
"""What holds for this process until it ends."""


def _segmentation(
    backbone: BackboneName, motion_size: tuple[int, int], height: int, width: int, device: str, literal: bool
) -> Work:
    """The logits of a frame."""
    frame = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    model, target = _model(backbone, motion_size).eval(), choose_device(device)
    network = SegmentNetwork(model, 392, target)
    images = network.images([frame]).contiguous()
    model = model.to(target)

    @torch.inference_mode()
    def logits() -> npt.NDArray[np.float32]:
        return (model(images) if literal else network.logits([frame])).cpu().numpy()

    return logits


def _training(
    backbone: BackboneName, motion_size: tuple[int, int], crop: int, batch: int, device: str, literal: bool
) -> Work:
    """A step, and its loss."""
    target = choose_device(device)
    if literal:
        _FORM.enter_context(patch.object(losses, "structural_distance", literal_distance))
    else:
        _FORM.enter_context(freed_memory_kept(target))
    model = _model(backbone, motion_size).to(target).train()
    model.decode_head2.dropout.p = 0
    if not literal:
        use_quick_convolutions(model.to(memory_format=torch.channels_last))
    rates, objective = Optimisation(), Objective(model)
    optimiser = Adam(model.parameters(), rates.lr, weight_decay=rates.weight_decay, fused=not literal)
    coarse = torch.rand(2 * batch, 3, crop // 8, crop // 8, device=target)
    pairs = F.interpolate(coarse, (crop, crop), mode="bicubic").clamp(0, 1).unflatten(0, (batch, 2))

    def update() -> npt.NDArray[np.float32]:
        loss = literal_loss(model, pairs) if literal else objective(pairs).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return loss.detach().cpu().numpy()

    return update


def _model(backbone: BackboneName, motion_size: tuple[int, int]) -> AMD:
    torch.manual_seed(0)
    return AMD(Architecture(backbone, motion_size=motion_size))


class _Own:
    """What this process computes, in one form, and its times."""

    work: ClassVar[Work]
    clock: ClassVar[Clock]


def _start(build: Callable[[bool], Work], device: str, literal: bool) -> None:
    _Own.work, _Own.clock = staticmethod(build(literal)), Clock(choose_device(device))
    reset_peak(_Own.clock.device)


def _timed() -> npt.NDArray[np.float32]:
    return _Own.clock.time(_Own.work)


def _measured() -> tuple[Clock, int]:
    """All times, and the peak of the memory."""
    return _Own.clock, peak_memory_bytes(_Own.clock.device)


def _in_turns(what: str, build: Callable[[bool], Work], device: str, repeats: int) -> list[Row]:
    """Both forms, each in a process of its own."""
    with ExitStack() as stack:
        forms = [
            stack.enter_context(ProcessPoolExecutor(1, get_context("spawn"), _start, (build, device, literal)))
            for literal in (False, True)
        ]
        found = [[form.submit(_timed).result() for form in forms] for _ in range(repeats)]
        (clock, peak), (literal_clock, literal_peak) = (form.submit(_measured).result() for form in forms)
    difference = max(float(np.abs(ours - literal).max()) for ours, literal in found)
    faster = min(literal_clock.cpu) / min(clock.cpu)
    row = {**clock.row(what), "difference": difference, "times faster": faster, "peak MiB": peak / 2**20}
    return [row, {**literal_clock.row("  literal form"), "peak MiB": literal_peak / 2**20}]
