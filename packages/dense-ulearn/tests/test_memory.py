"""Memory that a GPU needs, measured without a GPU.

On torch's meta device tensors have sizes but no values, and all code takes the way that it takes on a GPU.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dense_ulearn.inference import STORAGE, NetworkFeatures
from dense_ulearn.losses import draw_offsets, training_losses
from dense_ulearn.networks import DenseNetwork
from dense_ulearn.objective import keys_of_views, make_optimiser
from dense_ulearn.presets import ObjectiveSettings, Optimisation
from dense_ulearn.propagation import LabelPropagation
from dense_ulearn.settings import InferenceSettings
from vos_shared.layers.imagenet import normalise_images

MEBIBYTE = 2**20


class Meter(TorchDispatchMode):
    """Counts the memory of all live tensors on the meta device.

    Attributes:
        held: bytes now.
        peak: the most bytes at any time since the start.
        operations: number of operations.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.held = self.peak = self.operations = 0
        self._known: dict[int, int] = {}

    def __torch_dispatch__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        self.operations += 1
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.device.type == "meta":
                self._add(tensor.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self._known:
            self._known[storage._cdata] = storage.nbytes()
            self.held += storage.nbytes()
            self.peak = max(self.peak, self.held)
            weakref.finalize(storage, self._remove, storage._cdata)

    def _remove(self, key: int) -> None:
        self.held -= self._known.pop(key)


def test_the_meter_counts_what_is_alive() -> None:
    with Meter() as meter:
        first = torch.zeros(1000, device="meta")
        second = first + 1
        view = first[:10]
        assert meter.held == meter.peak == 8000
        del first, second
        assert (meter.held, meter.peak) == (4000, 8000)  # The view keeps the first tensor alive.
        del view
        assert meter.held == 0


def test_half_precision_path_needs_less_than_two_gibibytes() -> None:
    """Frames of 480p, 21 context frames, three channels; the network's weights, 43 MiB, count as well."""
    height, width, device = 480, 854, torch.device("meta")
    settings = InferenceSettings()
    held, operations = [], []
    with Meter() as meter, torch.inference_mode():
        features = NetworkFeatures(DenseNetwork(), settings.layer, device=device)
        propagation = LabelPropagation(settings, STORAGE["cuda"])
        masks = torch.empty(3, height, width, device=device)
        for time in range(settings.context + 4):
            before = meter.operations
            found = features(np.zeros((height, width, 3), np.uint8))
            propagation.step(found, masks if time == 0 else None, range(3) if time == 0 else ())
            del found
            held.append(meter.held)
            operations.append(meter.operations - before)
    context = 60 * 107 * 512 * 2 * (settings.context + 1)  # Latest frames and reference frame, half precision.
    assert context < held[-1] < context + 100 * MEBIBYTE
    assert held[-4:] == [held[-1]] * 4, "memory grows with the video"
    assert meter.peak < 500 * MEBIBYTE, "far from 2 GiB: what cuDNN and fragments of the pool take comes on top"
    assert operations[-1] < 3000, "so many small kernels would cost more than the work they do"


def test_a_training_step_never_mixes_devices() -> None:
    """Clips come from the CPU, as from a data loader; everything else is on the network's device."""
    device, objective = torch.device("meta"), ObjectiveSettings(grid=2, reference_grid=2)
    network = DenseNetwork().to(device)
    optimiser = make_optimiser(network, Optimisation())

    def forward(images: torch.Tensor) -> torch.Tensor:
        keys: torch.Tensor = network(images).key
        return keys

    views = torch.zeros(2, 5, 3, 64, 64, dtype=torch.uint8)
    images = normalise_images(views.to(device).float() / 255)
    keys = keys_of_views(forward, forward, images, images)
    theta = torch.eye(2, 3, device=device).expand(2, 5, 2, 3)
    offsets = draw_offsets(2, 8, 8, objective, torch.Generator().manual_seed(0))
    losses = training_losses(*keys, theta, theta, offsets, objective)
    losses.main.backward()
    optimiser.step()
    assert {value.device for value in losses} == {device}
    assert all(parameter.grad is not None for parameter in network.parameters())
