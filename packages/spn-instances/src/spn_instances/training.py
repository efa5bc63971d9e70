"""Training of foreground and object nets: the same loop for all stages, with different samples."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from spn_instances.checkpoints import save_weights
from spn_instances.data import Sample, TrainingSamples
from spn_instances.losses import balanced_loss
from spn_instances.networks import ResNetF
from spn_instances.settings import OFFICIAL_SIZE, SolverSettings
from vos_shared.training.arguments import RunOptions
from vos_shared.training.optimisers import set_rate
from vos_shared.training.run import TrainingRun, unchanged

if TYPE_CHECKING:
    from lightning_fabric import Fabric

LOG_STEPS = 20
"""Steps over which logged losses are averaged (average_loss)."""
TRUNK_RATE = 0.1
"""Rule ``adamw``: learning rate of the trunk, which starts from ImageNet weights, relative to that of the head."""
MAY_CHANGE = frozenset({"steps", "learning_rate", "halve_every", "save_steps"})
"""Settings that a resumed run may change."""


class Objective(nn.Module):
    """The model and its loss in one module, so that distributed training sees a single forward pass."""

    def __init__(self, model: ResNetF) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Sample) -> tuple[Tensor, Tensor]:
        """Batch -> (class-balanced loss, unweighted loss for the log), summed over pixels as in Caffe."""
        return balanced_loss(self.model(batch["image"]).float(), batch["label"])


def optimiser_of(model: ResNetF, settings: SolverSettings) -> Optimizer:
    """The optimiser of `SolverSettings.rule`, for the parameters that require gradients."""
    return _adamw(model, settings) if settings.rule == "adamw" else _sgd(model, settings)


def _sgd(model: ResNetF, settings: SolverSettings) -> SGD:
    """Caffe's solver: the biases of the head learn twice as fast and do not decay."""
    head = [layer.bias for layer in (model.head.feat08, model.head.score08)]
    biases = {id(bias) for bias in head}
    others = [value for value in model.parameters() if id(value) not in biases and value.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": others, "multiplier": 1.0, "weight_decay": settings.weight_decay},
        {"params": head, "multiplier": 2.0, "weight_decay": 0.0},
    ]
    return SGD(groups, lr=settings.learning_rate, momentum=settings.momentum)


def _adamw(model: ResNetF, settings: SolverSettings) -> AdamW:
    groups: list[dict[str, Any]] = [
        {"params": [value for value in part.parameters() if value.requires_grad], "multiplier": multiplier}
        for part, multiplier in ((model.trunk, TRUNK_RATE), (model.head, 1.0))
    ]
    return AdamW(
        [group for group in groups if group["params"]],
        lr=settings.learning_rate,
        betas=(settings.momentum, 0.999),
        weight_decay=settings.weight_decay,
    )


def rate_for(image: Tensor, settings: SolverSettings, step: int) -> float:
    """Learning rate of a step on images [.., H, W].

    The loss is a sum over pixels, and the rate of Caffe's solver is for 480x854 pixels. AdamW's steps do not depend on
    the scale of the loss.
    """
    if settings.rule == "adamw":
        return settings.rate(step)
    return settings.rate(step) * (OFFICIAL_SIZE[0] * OFFICIAL_SIZE[1] / (image.shape[-2] * image.shape[-1]))


def train(
    model: ResNetF,
    samples: TrainingSamples,
    settings: SolverSettings,
    options: RunOptions,
    fabric: Fabric,
) -> Path | None:
    """Train to the last step, or until it is asked to stop.

    Args:
        model: holds the start values.
        samples: training samples.
        settings: of the run.
        options: the output folder and how often it is written.
        fabric: launched; decides device, precision and ranks.

    Returns:
        Path of the last weights, or None if the run was asked to stop early (it can be resumed).

    Raises:
        UserError: as `TrainingRun`; a sample cannot be read (the steps before it are saved).
    """
    description = f"spn-instances {model.architecture.trunk}, {options.data}"
    size = samples.settings.size
    objective, optimiser = fabric.setup(Objective(model.train()), optimiser_of(model, settings))

    def write_weights(path: Path) -> None:
        facts = {"description": description, "shorter_side": str(min(size)) if size else "", "steps": str(run.step)}
        save_weights(path, model, facts)

    with TrainingRun(
        options,
        fabric,
        model,
        optimiser,
        steps=settings.steps,
        seed=settings.seed,
        write_weights=write_weights,
        save_steps=settings.save_steps,
        log_steps=LOG_STEPS,
        must_match=unchanged(settings, MAY_CHANGE)
        | {
            "network": model.architecture,
            "samples": samples.settings,
            "examples": len(samples.source),
            "data": repr(description),
        },
        remedy="lower --learning-rate",
    ) as run:
        for batch in run.batches(samples, settings.batch_size):
            rate = rate_for(batch["image"], settings, run.step)
            set_rate(optimiser, rate)
            balanced, plain = objective(batch)
            optimiser.zero_grad()
            fabric.backward(balanced)
            optimiser.step()
            run.finished({"train/balanced": balanced, "train/loss": plain}, {"train/lr": rate})
    return run.result
