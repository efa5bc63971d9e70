"""Training of students on soft masks, and of EvalSeg-Net on labels (specification, sections 8 and 9).

The loss is the mean squared error, and nothing else.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from unsup_fg.checkpoints import save_weights
from unsup_fg.data import EvalSegSamples, Sample, ScoredSample, StudentSamples
from unsup_fg.networks import build
from unsup_fg.presets import TrainingSettings
from unsup_fg.records import Records
from unsup_fg.settings import INPUT_SIZES, Architecture
from vos_shared.errors import UserError
from vos_shared.runtime.seeding import seed_everything
from vos_shared.training.arguments import RunOptions
from vos_shared.training.optimisers import TensorFlowAdam, set_rate
from vos_shared.training.run import TrainingRun, unchanged

if TYPE_CHECKING:
    from lightning_fabric import Fabric

LOG_STEPS = 20
"""Steps over which logged losses are averaged."""
MAY_CHANGE = frozenset({"steps", "learning_rate", "save_steps"})
"""Settings that a resumed run may change."""


class Objective(nn.Module):
    """A student and its loss in one module, so that distributed training sees a single forward pass."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, sample: Sample) -> tuple[Tensor, Tensor]:
        """Batch -> mean squared error in squared grey levels, and the mean of the map.

        A student whose output ReLU is dead has a mean of 0, and learns nothing more.
        """
        images = sample["image"].contiguous(memory_format=torch.channels_last)
        maps = self.network(images).float()
        return (maps - sample["label"]).square().mean(), maps.detach().mean()


class ScoreObjective(nn.Module):
    """EvalSeg-Net and its loss."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, sample: ScoredSample) -> tuple[Tensor, Tensor]:
        """Batch -> mean squared error, and the mean of the scores."""
        scores = self.network(sample["image"], sample["soft_mask"]).float()
        return (scores - sample["label"]).square().mean(), scores.detach().mean()


def train(
    architecture: Architecture,
    records: Records,
    settings: TrainingSettings,
    options: RunOptions,
    fabric: Fabric,
) -> Path | None:
    """Train a student or EvalSeg-Net to the last step, or until it is asked to stop.

    Args:
        architecture: of the network, which starts from random values.
        records: frames and soft masks, and for EvalSeg-Net their labels.
        settings: of the run.
        options: the output folder and how often it is written.
        fabric: launched; decides device, precision and ranks.

    Returns:
        The weights, or None where the run was asked to stop early (it can be resumed).

    Raises:
        UserError: as `TrainingRun`; records that cannot be read (what was computed is saved).
        BadWeights: the resume file is missing, damaged, or of another program.
    """
    name, size = architecture.network, INPUT_SIZES[architecture.network]
    if settings.resized < size or (name == "evalseg" and settings.resized != size):
        wanted = f"{size} pixels" if name == "evalseg" else f"{size} pixels or more"
        raise UserError(f"unsup-fg: --resized is {settings.resized}; {name} takes {wanted}")
    seed_everything(settings.seed)
    network = build(architecture).to(memory_format=torch.channels_last).train()
    for norm in (module for module in network.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.momentum = settings.norm_momentum
    optimiser = TensorFlowAdam([p for p in network.parameters() if p.requires_grad], lr=settings.learning_rate)
    kind = ScoreObjective if name == "evalseg" else Objective
    objective, optimiser = fabric.setup(kind(network), optimiser)

    def write_weights(path: Path) -> None:
        facts = {"description": f"{name}, {run.step} steps", "records": options.data, "steps": str(run.step)}
        save_weights(path, network, architecture, facts)

    with TrainingRun(
        options,
        fabric,
        network,
        optimiser,
        steps=settings.steps,
        seed=settings.seed,
        write_weights=write_weights,
        save_steps=settings.save_steps,
        log_steps=LOG_STEPS,
        must_match=unchanged(settings, MAY_CHANGE) | {"network": architecture, "number of records": len(records)},
        remedy="lower --learning-rate",
    ) as run:
        samples = _samples(records, architecture, settings, settings.batch * fabric.world_size)
        for batch in run.batches(samples, settings.batch):
            rate = settings.rate(run.step)
            set_rate(optimiser, rate)
            loss, mean = objective(batch)
            optimiser.zero_grad()
            fabric.backward(loss)
            optimiser.step()
            run.finished({"train/loss": loss, "train/mean": mean}, {"train/lr": rate})
    return run.result


def _samples(
    records: Records, architecture: Architecture, settings: TrainingSettings, per_step: int
) -> Dataset[Sample] | Dataset[ScoredSample]:
    if architecture.network == "evalseg":
        return EvalSegSamples(records, settings, per_step)
    return StudentSamples(records, architecture, settings, per_step)
