"""Training of the foreground and object networks: all stages are this loop with other samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.optim import SGD

from spn_instances.checkpoints import save_weights
from spn_instances.data import Sample, TrainingSamples
from spn_instances.losses import balanced_loss
from spn_instances.networks import ResNetF
from spn_instances.settings import OFFICIAL_SIZE, SolverSettings
from vos_shared.training.batches import read_batches
from vos_shared.training.run import TrainingRun

if TYPE_CHECKING:
    from lightning_fabric import Fabric

LOG_STEPS = 20
"""Steps over which logged losses are averaged (average_loss)."""
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


def optimiser_of(model: ResNetF, settings: SolverSettings) -> SGD:
    """Caffe's solver: the biases of the head learn twice as fast and do not decay."""
    head = [layer.bias for layer in (model.head.feat08, model.head.score08)]
    biases = {id(bias) for bias in head}
    others = [value for value in model.parameters() if id(value) not in biases and value.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": others, "multiplier": 1.0, "weight_decay": settings.weight_decay},
        {"params": head, "multiplier": 2.0, "weight_decay": 0.0},
    ]
    return SGD(groups, lr=settings.learning_rate, momentum=settings.momentum)


def set_rate(optimiser: Any, rate: float, image: Tensor) -> float:
    """Set the learning rate for a batch of images [B, 3, H, W]; returns it."""
    rate *= OFFICIAL_SIZE[0] * OFFICIAL_SIZE[1] / (image.shape[-2] * image.shape[-1])
    for group in optimiser.param_groups:
        group["lr"] = rate * group["multiplier"]
    return rate


def train(
    model: ResNetF,
    samples: TrainingSamples,
    settings: SolverSettings,
    folder: Path,
    fabric: Fabric,
    *,
    resume: bool = False,
    minutes: float = 5.0,
    workers: int = 0,
    notes: Mapping[str, str] | None = None,
) -> Path | None:
    """Train to the last step, or until it is asked to stop.

    Args:
        model: holds the start values.
        samples: to train on.
        settings: of the run.
        folder: gets snapshots, the resume file and logs.
        fabric: launched; decides device, precision and ranks.
        resume: go on from the folder's resume file.
        minutes: wall time between two saves.
        workers: processes that read and augment samples.
        notes: goes into the snapshots' metadata.

    Returns:
        The last snapshot, or None where the run was asked to stop early (it can be resumed).

    Raises:
        UserError: as `TrainingRun`; samples that cannot be read (what was computed is saved).
    """
    words = dict(notes or {})
    objective, optimiser = fabric.setup(Objective(model.train()), optimiser_of(model, settings))

    def write_weights(path: Path) -> None:
        facts = {"description": f"spn-instances foreground, {run.step} steps", **words, "steps": str(run.step)}
        save_weights(path, model, facts)

    with TrainingRun(
        folder,
        fabric,
        model,
        optimiser,
        steps=settings.steps,
        seed=settings.seed,
        write_weights=write_weights,
        minutes=minutes,
        save_steps=settings.save_steps,
        log_steps=LOG_STEPS,
        resume=resume,
        must_match=_circumstances(model, samples, settings) | {"data": repr(words.get("description"))},
        remedy="lower --learning-rate",
    ) as run:
        batches = read_batches(
            samples, fabric, first=run.step, steps=settings.steps, batch=settings.batch_size, workers=workers
        )
        for batch in run.over(batches):
            rate = set_rate(optimiser, settings.rate(run.step), batch["image"])
            balanced, plain = objective(batch)
            optimiser.zero_grad()
            fabric.backward(balanced)
            optimiser.step()
            run.finished({"train/balanced": balanced, "train/loss": plain}, {"train/lr": rate})
    return run.result


def _circumstances(model: ResNetF, samples: TrainingSamples, settings: SolverSettings) -> dict[str, str]:
    """What must be the same when a run goes on."""
    fixed = {name.replace("_", " "): repr(value) for name, value in asdict(settings).items() if name not in MAY_CHANGE}
    return fixed | {
        "network": repr(model.architecture),
        "samples": repr(samples.settings),
        "examples": repr(len(samples.source)),
    }
