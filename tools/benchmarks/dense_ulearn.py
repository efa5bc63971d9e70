"""dense-ulearn from frame to mask: frames a second, where the time goes, and its features beside a plain ResNet-18."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from torch import nn
from torchvision.models import resnet18

from dense_ulearn.checkpoints import untrained
from dense_ulearn.inference import STORAGE, DenseSegmenter, NetworkFeatures
from dense_ulearn.settings import InferenceSettings, Layer
from vos_shared.layers.imagenet import normalise_images
from vos_shared.method import Frame, ModelInfo
from vos_shared.runtime.device import autocast, choose_device, choose_precision
from vos_shared.runtime.memory import peak_memory_bytes, reset_peak
from vos_shared.runtime.timing import synchronise

Row = dict[str, object]
T = TypeVar("T")
R = TypeVar("R")


def plain_features(layer: Layer) -> nn.Module:
    """torchvision's ResNet-18 layers, the last strides set to one, nothing of ours: images to res3 or res4."""
    network = resnet18(weights=None)
    for stage in (network.layer3, network.layer4):
        stage[0].conv1.stride = stage[0].downsample[0].stride = (1, 1)
    stages = [network.layer1, network.layer2, network.layer3, *([network.layer4] if layer != "res3" else [])]
    return nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool, *stages).eval()


class Clock:
    """Milliseconds of calls: wall clock and processor."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def time(self, work: Callable[[T], R], argument: T) -> R:
        """Do some work and note what it took."""
        synchronise(self.device)
        wall, cpu = time.perf_counter(), time.process_time()
        result = work(argument)
        synchronise(self.device)
        self.wall.append(1000 * (time.perf_counter() - wall))
        self.cpu.append(1000 * (time.process_time() - cpu))
        return result

    def row(self, what: str) -> Row:
        """The fastest call, as others may use the machine."""
        return {
            "what": what,
            "ms a frame": min(self.wall),
            "frames a second": 1000 / min(self.wall),
            "CPU ms": min(self.cpu),
        }


def drifting(frames: int, height: int, width: int) -> list[Frame]:
    """Smooth noise that drifts by two pixels a frame, uint8 [H, W, 3]."""
    noise = torch.rand(
        1, 3, height // 16 + 2, (width + 2 * frames) // 16 + 2, generator=torch.Generator().manual_seed(0)
    )
    canvas = nn.functional.interpolate(noise, (height, width + 2 * frames), mode="bicubic")[0].clamp(0, 1)
    pixels = (canvas.permute(1, 2, 0) * 255).byte().numpy()
    return [np.ascontiguousarray(pixels[:, 2 * t : 2 * t + width]) for t in range(frames)]


@torch.inference_mode()
def run(
    height: int = 480,
    width: int = 854,
    layer: Layer = "res4",
    repeats: int = 3,
    device: str = "cpu",
    precision: str = "fp32",
    objects: int = 2,
) -> list[Row]:
    """Segment frames with a full context, and compute plain ResNet-18 layers on the same frames in turns.

    Args:
        height: of the frames.
        width: of the frames.
        layer: features to propagate with.
        repeats: frames measured.
        device: cpu or cuda.
        precision: of the convolutions of both networks.
        objects: in the first mask.
    """
    place = choose_device(device)
    kind = choose_precision(precision, place)
    settings = InferenceSettings(layer=layer)
    features = NetworkFeatures(untrained().network(), layer, device=place, precision=kind)
    plain = plain_features(layer).to(place)
    total, ours, theirs = Clock(place), Clock(place), Clock(place)

    segmenter = DenseSegmenter(
        lambda frame: ours.time(features, frame),
        ModelInfo(0, "untrained", False),
        settings,
        STORAGE.get(place.type, torch.float32),
    )
    frames = drifting(settings.context + 1 + repeats, height, width)
    bands = (np.arange(width) * (objects + 1) // width).astype(np.uint8)
    segmenter.step(frames[0], np.tile(bands, (height, 1)))
    for frame in frames[1:-repeats]:
        segmenter.step(frame)
    ours.wall.clear()
    ours.cpu.clear()
    reset_peak(place)
    peak = 0.0
    for frame in frames[-repeats:]:
        total.time(segmenter.step, frame)
        peak = peak or peak_memory_bytes(place) / 2**20  # Not that of the plain network as well.
        images = normalise_images(torch.from_numpy(frame).permute(2, 0, 1)[None].contiguous().to(place).float() / 255)
        with autocast(place, kind):
            theirs.time(plain, images)
    rest = Clock(place)
    rest.wall = [whole - part for whole, part in zip(total.wall, ours.wall, strict=True)]
    rest.cpu = [whole - part for whole, part in zip(total.cpu, ours.cpu, strict=True)]
    return [
        {**total.row("segmentation"), "peak MiB": peak},
        rest.row("  propagation and mask"),
        ours.row(f"  features ({layer})"),
        theirs.row("  plain torchvision ResNet-18 layers"),
    ]
