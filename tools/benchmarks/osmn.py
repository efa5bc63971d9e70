"""osmn from frame to mask: one object and several, at once and one by one, beside the plain VGG16 trunk."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models import vgg16

from benchmarks._measure import Clock, Row
from osmn.inference import OSMNSegmenter
from osmn.networks import OSMN, VARIANTS, initialise
from osmn.settings import InferenceSettings
from vos_shared.method import Frame, ModelInfo, ObjectMask, SoftMasks
from vos_shared.runtime.device import autocast, choose_device, choose_precision
from vos_shared.runtime.memory import peak_memory_bytes, reset_peak


def model_with_signal(variant: str) -> OSMN:
    """A network with start values scaled so that activations keep their size and outputs can be compared."""
    torch.manual_seed(0)
    model = initialise(OSMN(VARIANTS[variant]))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 4 and parameter[0].numel() > 1:
                parameter.normal_(std=(2 / parameter[0].numel()) ** 0.5)
    return model.eval()


def bands(height: int, width: int, objects: int) -> ObjectMask:
    """Vertical bands of objects on the middle rows, uint8 [H, W]."""
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : -height // 4] = np.arange(width) * (objects + 1) // width
    return mask


def plain_trunk(network: nn.Module, image: Tensor, dtype: torch.dtype) -> Tensor:
    """Features of the trunk alone."""
    with torch.inference_mode(), autocast(image.device, dtype):
        features: Tensor = network(image)
    return features


def run(
    height: int = 480,
    width: int = 854,
    objects: int = 3,
    variant: str = "osvos",
    repeats: int = 5,
    device: str = "cpu",
    precision: str = "fp32",
) -> list[Row]:
    """Segment frames with one object and with several, and run the plain VGG16 trunk, in turns.

    Args:
        height: of the frame.
        width: of the frame.
        objects: how many there are in the second case.
        variant: of the network.
        repeats: rounds; the fastest counts, as others may use the machine.
        device: cpu or cuda.
        precision: of all networks.
    """
    target = choose_device(device)
    dtype = choose_precision(precision, target)
    model = model_with_signal(variant)
    frame: Frame = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)

    def prompted(count: int, at_once: int) -> OSMNSegmenter:
        settings = InferenceSettings(object_batch=at_once)
        segmenter = OSMNSegmenter(model, ModelInfo(0, "random", False), settings, target, dtype)
        segmenter.step(frame, bands(height, width, count))
        return segmenter

    def soft_masks(segmenter: OSMNSegmenter) -> SoftMasks:
        segmenter.reset()
        segmenter.step(frame, bands(height, width, objects))
        found = segmenter.step(frame, soft_masks=True).soft_masks
        assert found is not None
        return found

    segmenters = {
        "1 object": prompted(1, 1),
        f"{objects} objects": prompted(objects, objects),
        f"{objects} objects, one by one": prompted(objects, 1),
    }
    trunk = vgg16(weights=None).features[:-1].eval().to(target)
    trunk_last = deepcopy(trunk).to(memory_format=torch.channels_last)
    image = torch.randn(1, 3, height, width, device=target)
    image_last = image.contiguous(memory_format=torch.channels_last)
    works: dict[str, Callable[[], object]] = {
        "plain VGG16 trunk": partial(plain_trunk, trunk, image, dtype),
        "plain VGG16 trunk, channels last": partial(plain_trunk, trunk_last, image_last, dtype),
        **{name: partial(segmenter.step, frame) for name, segmenter in segmenters.items()},
    }
    clocks = {name: Clock(target) for name in works}
    reset_peak(target)
    for _ in range(repeats):
        for name, work in works.items():
            clocks[name].time(work)
    peak = peak_memory_bytes(target) / 2**20 if target.type == "cuda" else None
    together, alone = (soft_masks(segmenters[f"{objects} objects{how}"]) for how in ("", ", one by one"))
    difference = {f"{objects} objects, one by one": float(np.abs(together - alone).max())}
    one = min(clocks["1 object"].wall)
    return [
        {
            **clock.row(name),
            "times 1 object": min(clock.wall) / one,
            "largest difference of soft masks": difference.get(name),
            "peak MiB": peak,
        }
        for name, clock in clocks.items()
    ]
