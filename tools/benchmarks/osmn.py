"""osmn on one frame: one object and several, at once and one by one, beside the plain VGG16 trunk."""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, nn
from torchvision.models import vgg16

from osmn.networks import OSMN, VARIANTS, initialise
from vos_shared.runtime.device import autocast, choose_device, choose_precision
from vos_shared.runtime.memory import peak_memory_bytes, reset_peak
from vos_shared.runtime.timing import synchronise

Row = dict[str, object]


def model_with_signal(variant: str) -> OSMN:
    """A network whose activations neither die nor explode, so that outputs can be compared: scaled start values."""
    torch.manual_seed(0)
    model = initialise(OSMN(VARIANTS[variant]))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 4 and parameter[0].numel() > 1:
                parameter.normal_(std=(2 / parameter[0].numel()) ** 0.5)
    return model.eval()


@torch.inference_mode()
def run(
    height: int = 480,
    width: int = 854,
    objects: int = 3,
    variant: str = "osvos",
    repeats: int = 5,
    device: str = "cpu",
    precision: str = "fp32",
) -> list[Row]:
    """Segment a frame with one object and with several, and run the plain VGG16 trunk, in turns.

    Args:
        height: of the frame.
        width: of the frame.
        objects: how many there are in the second case.
        variant: of the network.
        repeats: rounds; the fastest counts, as others may use the machine.
        device: cpu or cuda.
        precision: of all networks.
    """
    place = choose_device(device)
    kind = choose_precision(precision, place)
    model = model_with_signal(variant).to(place).to(memory_format=torch.channels_last)
    trunk = vgg16(weights=None).features[:-1].eval().to(place)
    trunk_last = deepcopy(trunk).to(memory_format=torch.channels_last)
    torch.manual_seed(1)
    image = torch.randn(1, 3, height, width, device=place)
    image_last = image.contiguous(memory_format=torch.channels_last)
    guides, spatial = (torch.rand(objects, *shape, device=place) for shape in ((3, 224, 224), (1, height, width)))

    def modulation(guide: Tensor) -> Tensor:
        with autocast(place, kind):
            gamma = model.visual_modulation(guide)
        assert gamma is not None
        return gamma

    def segment(chosen: slice) -> Tensor:
        with autocast(place, kind):
            logits: Tensor = model(image_last, spatial[chosen], gammas[chosen])
            return logits.float()

    def plain(network: nn.Module, pixels: Tensor) -> Tensor:
        with autocast(place, kind):
            features: Tensor = network(pixels)
        return features

    gammas = torch.cat([modulation(guide[None]) for guide in guides])
    works: dict[str, Callable[[], Tensor]] = {
        "plain VGG16 trunk": lambda: plain(trunk, image),
        "plain VGG16 trunk, channels last": lambda: plain(trunk_last, image_last),
        "1 object": lambda: segment(slice(0, 1)),
        f"{objects} objects": lambda: segment(slice(None)),
        f"{objects} objects, one by one": lambda: torch.cat([segment(slice(k, k + 1)) for k in range(objects)]),
        "visual modulator, once an object": lambda: modulation(guides[:1]),
    }
    milliseconds: dict[str, list[float]] = {name: [] for name in works}
    cpu: dict[str, list[float]] = {name: [] for name in works}
    outputs: dict[str, Tensor] = {}
    reset_peak(place)
    for _ in range(repeats):
        for name, work in works.items():
            synchronise(place)
            wall, busy = time.perf_counter(), time.process_time()
            outputs[name] = work()
            synchronise(place)
            milliseconds[name].append(1000 * (time.perf_counter() - wall))
            cpu[name].append(1000 * (time.process_time() - busy))
    together, alone = (outputs[name].sigmoid() for name in (f"{objects} objects", f"{objects} objects, one by one"))
    one = min(milliseconds["1 object"])
    return [
        {
            "what": name,
            "ms": min(milliseconds[name]),
            "CPU ms": min(cpu[name]),
            "times 1 object": min(milliseconds[name]) / one,
            "largest difference of probabilities": float((together - alone).abs().max())
            if "objects," in name
            else None,
            "peak MiB": peak_memory_bytes(place) / 2**20 if place.type == "cuda" else None,
        }
        for name in works
    ]
