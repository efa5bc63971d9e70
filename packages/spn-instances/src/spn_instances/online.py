"""Fine-tuning on first frames: a network for the foreground and one for each object."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from spn_instances.augmentation import Draw, augment, augment_label
from spn_instances.data import Example, Sample, TrainingSamples
from spn_instances.images import network_input
from spn_instances.losses import balanced_loss
from spn_instances.networks import ResNetF
from spn_instances.settings import OnlineSettings, SampleSettings, SolverSettings
from spn_instances.training import Objective, optimiser_of, rate_for
from vos_shared.errors import UserError
from vos_shared.method import Frame, ObjectMask
from vos_shared.runtime.device import autocast
from vos_shared.training.online import trained_online
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
    """Fine-tune a copy of the network on a label.

    Args:
        model: is not changed.
        examples: prompted frames and their labels.
        settings: steps and rate.

    Returns:
        In evaluation mode, on the model's device.

    Raises:
        UserError: the training diverged.
    """
    device = next(model.parameters()).device
    solver = settings.solver
    samples = TrainingSamples(examples, _SAMPLES, solver.seed)
    with trained_online(device):
        tuned = copy.deepcopy(model).train().requires_grad_(True)
        optimiser, objective = optimiser_of(tuned, solver), Objective(tuned)
        for step in range(solver.steps):
            batch = {name: value.to(device) for name, value in _batch(samples, step, solver.batch_size).items()}
            set_rate(optimiser, rate_for(batch["image"], solver, step))
            _take_step(objective(batch)[0], optimiser, step)
    return _finished(tuned, solver.steps)


def _batch(samples: TrainingSamples, step: int, size: int) -> Sample:
    drawn = [samples[step, slot] for slot in range(size)]
    return {name: torch.stack([sample[name] for sample in drawn]) for name in drawn[0]}


class LateTuning:
    """Fine-tuning of late layers and heads on labels of one frame; the networks share the parent's early layers.

    The early layers, up to stride 8, see each augmented frame once, for all labels and all steps.

    Args:
        parent: is not changed.
        frame: uint8 RGB [H, W, 3].
        settings: steps, rate and number of augmented frames.
    """

    def __init__(self, parent: ResNetF, frame: Frame, settings: OnlineSettings) -> None:
        self.parent, self.frame, self.settings = parent, frame, settings
        self.size = frame.shape[0], frame.shape[1]
        rng = np.random.default_rng([settings.solver.seed, 5])
        self._draws = [Draw.sample(rng, _SAMPLES, self.size) for _ in range(settings.fast_samples)]

    def from_parent(self, label: ObjectMask) -> ResNetF:
        """Fine-tune the parent on a label, uint8 [H, W], with all steps.

        Raises:
            UserError: the training diverged.
        """
        return self._tuned(self.parent, label, self.settings.solver)

    def from_foreground(self, foreground: ResNetF, label: ObjectMask) -> ResNetF:
        """Fine-tune the frame's foreground net, which comes from `from_parent`, on an object; this takes fewer steps.

        Raises:
            UserError: the training diverged.
        """
        return self._tuned(foreground, label, self.settings.object_solver)

    @cached_property
    def early(self) -> Tensor:
        """Features of stride 8 of the augmented frames, [S, C, h, w]."""
        device = next(self.parent.parameters()).device
        with torch.inference_mode(False), torch.no_grad(), autocast(device, torch.float32):
            images = (augment(self.frame, draw, self.size) for draw in self._draws)
            return torch.cat([self.parent.early_features(network_input(image)[None].to(device)) for image in images])

    def _tuned(self, start: ResNetF, label: ObjectMask, solver: SolverSettings) -> ResNetF:
        early = self.early
        warped = np.stack([augment_label(label, draw, self.size) > 0 for draw in self._draws])
        labels = torch.from_numpy(warped).to(early.device)  # [S, H, W]
        with trained_online(early.device):
            tuned = with_own_late_layers(start).train().requires_grad_(True)
            for layer in tuned.trunk.early_layers():
                layer.requires_grad_(False)
            optimiser = optimiser_of(tuned, solver)
            for step in range(solver.steps):
                rows = torch.arange(step * solver.batch_size, (step + 1) * solver.batch_size) % len(labels)
                set_rate(optimiser, rate_for(labels, solver, step))
                scores = tuned.head(tuned.trunk.late(early[rows]), self.size)
                _take_step(balanced_loss(scores.float(), labels[rows])[0], optimiser, step)
        return _finished(tuned, solver.steps)


def with_own_late_layers(model: ResNetF) -> ResNetF:
    """A copy of a network that shares its early layers."""
    return copy.deepcopy(model, {id(layer): layer for layer in model.trunk.early_layers()})


def _take_step(loss: Tensor, optimiser: torch.optim.Optimizer, step: int) -> None:
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
