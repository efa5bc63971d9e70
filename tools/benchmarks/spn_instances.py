"""spn-instances: scans of the propagation beside a loop over columns, the head beside its literal form, fine-tuning.

The literal head is what the official definition says: dense transposed convolutions over up to 3072 channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from benchmarks._measure import Clock, Row
from spn_instances.checkpoints import load_weights
from spn_instances.images import network_input
from spn_instances.learners import OnlineLearner
from spn_instances.networks import Architecture, ResNetF
from spn_instances.online import Examples, LateTuning, fine_tune
from spn_instances.settings import OnlineSettings
from spn_instances.spn import normalise_gates, propagate
from spn_instances.stages import foreground_maps
from spn_instances.weights import WEIGHTS

_FRAME = np.random.default_rng(0).integers(0, 256, (240, 432, 3), np.uint8)


def plain_scans(x: Tensor, gates: Tensor) -> Tensor:
    """Four three-way scans, a direction after the other, from their definition; arguments as of `propagate`."""
    turned = [x, x.flip(3), x.mT, x.mT.flip(3)]
    of_each = gates.unbind(1)
    moved = [of_each[0], of_each[1].flip(4), of_each[2].mT, of_each[3].mT.flip(4)]
    left, right, top, bottom = (_plain_scan(*pair) for pair in zip(turned, moved, strict=True))
    return torch.stack([left, right.flip(3), top.mT, bottom.flip(3).mT])


def _plain_scan(x: Tensor, gates: Tensor) -> Tensor:
    columns = [x[..., 0]]
    for t in range(1, x.shape[3]):
        before, upper, lower = columns[-1], gates[:, 0, ..., t].clone(), gates[:, 2, ..., t].clone()
        upper[..., 0] = lower[..., -1] = 0
        straight = gates[:, 1, ..., t]
        shifted = upper * F.pad(before, (1, 0))[..., :-1] + lower * F.pad(before, (0, 1))[..., 1:]
        columns.append((1 - upper - straight - lower) * x[..., t] + shifted + straight * before)
    return torch.stack(columns, 3)


def run(
    height: int = 480,
    width: int = 854,
    channels: int = 1,
    repeats: int = 5,
    literal: bool = False,
    tuning: bool = False,
    official: bool = False,
    device: str = "cpu",
) -> list[Row]:
    """Measure the scans and, with options, a frame through ResNetF and fine-tuning; the fastest call counts.

    Args:
        height: of the map and the frame.
        width: of the map and the frame.
        channels: of the map, or objects times channels.
        repeats: of the scans.
        literal: also the foreground map of a frame, with our head and with the literal one, once each: 20 s of a core
            and 4 GB.
        tuning: also fine-tuning of one, two and three objects with the weights that come with the package: two minutes.
        official: also two steps of ResNet-101's fine-tuning, without and with --fast.
        device: cpu or cuda.
    """
    where = torch.device(device)
    rows = _scans(torch.rand(1, channels, height, width, device=where), repeats)
    if literal:
        rows += _foreground(height, width, where)
    if tuning:
        rows += _tuning(where)
    if official:
        rows += _official(where)
    return rows


@torch.inference_mode()
def _scans(x: Tensor, repeats: int) -> list[Row]:
    number, channels, height, width = x.shape
    gates = normalise_gates(torch.randn(number, 4, 3, channels, height, width, device=x.device))
    loop, ours = Clock(x.device), Clock(x.device)
    for _ in range(repeats):
        expected = loop.time(partial(plain_scans, x, gates))
        found = ours.time(partial(propagate, x, gates))
    return [loop.row("scans: loop over columns"), _compared(ours.row("scans: ours"), found, expected)]


@torch.inference_mode()
def _foreground(height: int, width: int, device: torch.device) -> list[Row]:
    """The foreground map of a frame, from its pixels on, and the parts that the maps have in common and not."""
    network = ResNetF().eval().to(device)
    literal = ResNetF(Architecture(upsamplers="dense")).eval().to(device)
    literal.load_state_dict(network.state_dict(), strict=False)
    frame = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    clocks = {what: Clock(device) for what in ("trunk", "map: ours", "map: literal head")}
    image = network_input(frame)[None].to(device)
    clocks["trunk"].time(partial(network.features, image))
    ours = clocks["map: ours"].time(partial(foreground_maps, [network], frame, device))
    expected = clocks["map: literal head"].time(partial(foreground_maps, [literal], frame, device))
    trunk, found, theirs = (clock.row(what) for what, clock in clocks.items())
    return [trunk, theirs, _compared(found, torch.from_numpy(ours[0]), torch.from_numpy(expected[0]))]


def _compared(row: Row, found: Tensor, expected: Tensor) -> Row:
    return {**row, "largest difference": float((found - expected).abs().max())}


def _tuning(device: torch.device) -> list[Row]:
    """Fine-tuning on a frame of 240x432, as a video with so many objects has it; noise costs what a video does."""
    parent = load_weights(WEIGHTS.locate(None), ResNetF).model.to(device)
    settings = OnlineSettings().for_trunk(parent.architecture.trunk)
    ids = np.zeros(_FRAME.shape[:2], np.uint8)
    clocks: dict[str, Clock] = {}
    for count in (1, 2, 3):
        ids[60 * count : 60 * count + 40, 50:350] = count
        learner = OnlineLearner(parent, settings)
        clock = clocks[f"fine-tuning: {count} object{'s' * (count > 1)}"] = Clock(device)
        clock.time(partial(learner.learn, _FRAME, ids, range(1, count + 1)))
    labels = [ids > 0, *(ids == object_id for object_id in (1, 2, 3))]
    clock = clocks["fine-tuning: 3 objects and the foreground, all from the parent"] = Clock(device)
    clock.time(partial(_from_parent, LateTuning(parent, _FRAME, settings), labels))
    one = next(iter(clocks.values())).cpu[0]
    return [{**clock.row(what), "times one object": clock.cpu[0] / one} for what, clock in clocks.items()]


def _from_parent(tuning: LateTuning, labels: Sequence[NDArray[np.bool_]]) -> None:
    for label in labels:
        tuning.from_parent(label.astype(np.uint8))


def _official(device: torch.device) -> list[Row]:
    """Two steps of ResNet-101 on a frame of 240x432, of all layers, and of the late ones, whose inputs are kept."""
    network, label = ResNetF().to(device), np.zeros(_FRAME.shape[:2], np.uint8)
    label[100:150, 100:300] = 1
    settings = OnlineSettings(steps=2, fast_samples=2)
    whole, late, tuning = Clock(device), Clock(device), LateTuning(network, _FRAME, settings)
    whole.time(partial(fine_tune, network, Examples([(_FRAME, label)]), settings))
    kept = Clock(device)
    kept.time(lambda: tuning.early)
    late.time(partial(tuning.from_parent, label))
    return [
        whole.row("fine-tuning: two steps of ResNet-101"),
        kept.row(".. early layers of two frames, once"),
        late.row(".. two steps with --fast"),
    ]
