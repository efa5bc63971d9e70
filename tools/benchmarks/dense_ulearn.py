"""dense-ulearn from frame to mask: frames a second, where the time goes, and its features beside a plain ResNet-18."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import nn
from torchvision.models import resnet18

from benchmarks._measure import Clock, Row
from dense_ulearn.checkpoints import untrained
from dense_ulearn.inference import STORAGE, DenseSegmenter, NetworkFeatures
from dense_ulearn.settings import InferenceSettings, Layer
from vos_shared.layers.imagenet import normalise_images
from vos_shared.method import Frame, ModelInfo
from vos_shared.runtime.device import autocast, choose_device, choose_precision
from vos_shared.runtime.memory import peak_memory_bytes, reset_peak


def plain_features(layer: Layer) -> nn.Module:
    """torchvision's ResNet-18 layers with the last strides set to one: images to res3 or res4."""
    network = resnet18(weights=None)
    for stage in (network.layer3, network.layer4):
        stage[0].conv1.stride = stage[0].downsample[0].stride = (1, 1)
    stages = [network.layer1, network.layer2, network.layer3, *([network.layer4] if layer != "res3" else [])]
    return nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool, *stages).eval()


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
    target = choose_device(device)
    dtype = choose_precision(precision, target)
    settings = InferenceSettings(layer=layer)
    features = NetworkFeatures(untrained().network(), layer, device=target, precision=dtype)
    plain = plain_features(layer).to(target)
    total, ours, theirs = Clock(target), Clock(target), Clock(target)

    segmenter = DenseSegmenter(
        lambda frame: ours.time(lambda: features(frame)),
        ModelInfo(0, "untrained", False),
        settings,
        STORAGE.get(target.type, torch.float32),
    )
    frames = drifting(settings.context + 1 + repeats, height, width)
    bands = (np.arange(width) * (objects + 1) // width).astype(np.uint8)
    segmenter.step(frames[0], np.tile(bands, (height, 1)))
    for frame in frames[1:-repeats]:
        segmenter.step(frame)
    ours.forget()
    reset_peak(target)
    peak = 0.0
    for frame in frames[-repeats:]:
        total.time(partial(segmenter.step, frame))
        peak = peak or peak_memory_bytes(target) / 2**20  # Without the plain network's memory.
        images = normalise_images(torch.from_numpy(frame).permute(2, 0, 1)[None].contiguous().to(target).float() / 255)
        with autocast(target, dtype):
            theirs.time(partial(plain, images))
    rest = Clock(target)
    rest.wall = [whole - part for whole, part in zip(total.wall, ours.wall, strict=True)]
    rest.cpu = [whole - part for whole, part in zip(total.cpu, ours.cpu, strict=True)]
    return [
        {**total.row("segmentation"), "peak MiB": peak},
        rest.row("  propagation and mask"),
        ours.row(f"  features ({layer})"),
        theirs.row("  plain torchvision ResNet-18 layers"),
    ]
