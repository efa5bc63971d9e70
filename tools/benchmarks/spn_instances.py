"""spn-instances: scans of the propagation beside a loop over columns, and the head beside its literal form.

The literal head is what the official definition says: dense transposed convolutions over up to 3072 channels.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks._measure import Clock, Row
from spn_instances.networks import Architecture, ResNetF
from spn_instances.networks.resnetf import FusionHead
from spn_instances.networks.trunks import Features
from spn_instances.spn import normalise_gates, propagate
from vos_shared.layers.upsampling import bilinear_kernel


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


def literal_head(head: FusionHead, features: Features, size: tuple[int, int]) -> Tensor:
    """The head as the official definition has it."""
    res3, res4, res5 = features
    cropped5 = _dense(res5, 4)[..., 2 : 2 + res4.shape[2], 2 : 2 + res4.shape[3]]
    upsampled4 = _dense(torch.cat([res4 * head.scale_res4[:, None, None], cropped5], 1), 4)
    cropped4 = upsampled4[..., : res3.shape[2], : res3.shape[3]]
    x = head.score08(head.feat08(torch.cat([cropped4, res3 * head.scale_res3[:, None, None]], 1)))
    return _dense(x, 16)[..., 8 : 8 + size[0], 8 : 8 + size[1]]


def _dense(x: Tensor, side: int) -> Tensor:
    channels = range(x.shape[1])
    weight = x.new_zeros(len(channels), len(channels), side, side)
    weight[channels, channels] = bilinear_kernel(side).to(x)
    return F.conv_transpose2d(x, weight, stride=side // 2)


@torch.inference_mode()
def run(
    height: int = 480,
    width: int = 854,
    channels: int = 1,
    repeats: int = 5,
    literal: bool = False,
    device: str = "cpu",
) -> list[Row]:
    """Measure the scans and, with --literal, a frame through ResNetF; the fastest call counts.

    Args:
        height: of the map and the frame.
        width: of the map and the frame.
        channels: of the map, or objects times channels.
        repeats: of the scans.
        literal: also the network, with our head and with the literal one, once each: minutes on a CPU, and 4 GB.
        device: cpu or cuda.
    """
    where = torch.device(device)
    x = torch.rand(1, channels, height, width, device=where)
    gates = normalise_gates(torch.randn(1, 4, 3, channels, height, width, device=where))
    clocks = {"scans: loop over columns": Clock(where), "scans: ours": Clock(where)}
    for _ in range(repeats):
        expected = clocks["scans: loop over columns"].time(partial(plain_scans, x, gates))
        found = clocks["scans: ours"].time(partial(propagate, x, gates))
    difference = [None, float((found - expected).abs().max())]
    rows = [clock.row(what) for what, clock in clocks.items()]
    if literal:
        network = ResNetF(Architecture()).eval().to(where)
        image = torch.randn(1, 3, height, width, device=where) * 60
        clocks = {"frame: literal head": Clock(where), "frame: ours": Clock(where)}
        ours: Tensor = clocks["frame: ours"].time(partial(network, image))
        theirs = clocks["frame: literal head"].time(partial(_literal_frame, network, image))
        difference += [None, float((ours - theirs).abs().max())]
        rows += [clock.row(what) for what, clock in clocks.items()]
    return [{**row, "largest difference": value} for row, value in zip(rows, difference, strict=True)]


def _literal_frame(network: ResNetF, image: Tensor) -> Tensor:
    return literal_head(network.head, network.features(image), (image.shape[2], image.shape[3]))
