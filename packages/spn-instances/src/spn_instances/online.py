"""Fine-tuning on first frames: a network for the foreground and one for each object."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from spn_instances.augmentation import Draw, augment, augment_label
from spn_instances.data import Example, TrainingSamples
from spn_instances.images import network_input
from spn_instances.losses import balanced_loss
from spn_instances.networks import ResNetF
from spn_instances.networks.trunks import Features
from spn_instances.settings import OnlineSettings, SampleSettings, SolverSettings
from spn_instances.training import Objective, optimiser_of, rate_for
from vos_shared.errors import UserError
from vos_shared.method import Frame, ObjectMask
from vos_shared.runtime.device import autocast
from vos_shared.training.optimisers import set_rate

_SAMPLES = SampleSettings(size=None)


@dataclass(frozen=True)
class Examples:
    """Prompted frames of a video, and the label of one object, or of all as foreground."""

    pairs: Sequence[Example]

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.pairs)

    def __getitem__(self, index: int) -> Example:
        """A frame and its label."""
        return self.pairs[index]


def fine_tune(model: ResNetF, examples: Examples, settings: OnlineSettings) -> ResNetF:
    """A copy of the network that has learned a label.

    Args:
        model: stays as it is.
        examples: to learn from.
        settings: steps and rate.

    Returns:
        In evaluation mode, on the model's device.

    Raises:
        UserError: it diverged.
    """
    device = next(model.parameters()).device
    solver = _solver(settings)
    samples = TrainingSamples(examples, _SAMPLES, solver.seed)
    with torch.inference_mode(False), torch.enable_grad(), autocast(device, torch.float32):
        tuned = copy.deepcopy(model).train().requires_grad_(True)
        optimiser, objective = optimiser_of(tuned, solver), Objective(tuned)
        for step in range(solver.steps):
            batch = {name: value[None].to(device) for name, value in samples[step, 0].items()}
            set_rate(optimiser, rate_for(batch["image"], solver, step))
            _take_step(objective(batch)[0], optimiser, step)
    return _finished(tuned, settings.steps)


def fine_tune_heads(
    model: ResNetF, frame: Frame, labels: Mapping[str, ObjectMask], settings: OnlineSettings
) -> dict[str, ResNetF]:
    """Networks that have learned labels of one frame in their heads alone; they share the model's trunk.

    The trunk sees each augmented frame once, for all labels and all steps.

    Args:
        model: stays as it is.
        frame: uint8 RGB [H, W, 3].
        labels: uint8 [H, W] by name.
        settings: steps, rate and number of augmented frames.

    Raises:
        UserError: one diverged.
    """
    device = next(model.parameters()).device
    solver = _solver(settings)
    size = frame.shape[0], frame.shape[1]
    rng = np.random.default_rng([solver.seed, 5])
    draws = [Draw.sample(rng, _SAMPLES, size) for _ in range(settings.fast_samples)]
    with torch.inference_mode(False), torch.no_grad(), autocast(device, torch.float32):
        images = [network_input(augment(frame, draw, size))[None].to(device) for draw in draws]
        features = [model.features(image) for image in images]
    tuned = {}
    for name, label in labels.items():
        warped = [torch.from_numpy(augment_label(label, draw, size) > 0)[None].to(device) for draw in draws]
        tuned[name] = _fine_tuned_head(model, features, warped, solver)
    return tuned


def _fine_tuned_head(
    model: ResNetF, features: Sequence[Features], labels: Sequence[Tensor], solver: SolverSettings
) -> ResNetF:
    with torch.inference_mode(False), torch.enable_grad(), autocast(labels[0].device, torch.float32):
        tuned = with_own_head(model)
        tuned.trunk.requires_grad_(False)
        tuned.head.requires_grad_(True)
        optimiser = optimiser_of(tuned, solver)
        for step in range(solver.steps):
            which = step % len(labels)
            label = labels[which]
            set_rate(optimiser, rate_for(label, solver, step))
            scores = tuned.head(features[which], (label.shape[1], label.shape[2]))
            _take_step(balanced_loss(scores.float(), label)[0], optimiser, step)
    return _finished(tuned, solver.steps)


def with_own_head(model: ResNetF) -> ResNetF:
    """A copy of a network that shares its trunk."""
    return copy.deepcopy(model, {id(model.trunk): model.trunk})


def _solver(settings: OnlineSettings) -> SolverSettings:
    return SolverSettings(settings.steps, learning_rate=settings.learning_rate, momentum=settings.momentum)


def _take_step(loss: Tensor, optimiser: torch.optim.SGD, step: int) -> None:
    if step % 20 == 0 and not math.isfinite(loss.item()):
        raise UserError(_diverged(step))
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call, unused-ignore]
    optimiser.step()


def _finished(tuned: ResNetF, steps: int) -> ResNetF:
    if not all(bool(value.isfinite().all()) for value in tuned.parameters()):
        raise UserError(_diverged(steps))
    return tuned.eval().requires_grad_(False)


def _diverged(steps: int) -> str:
    return f"spn-instances: fine-tuning has diverged after {steps} steps; lower --learning-rate"
