"""Training of the refinement network (specification, section 7.6)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, AdamW, Optimizer

from spn_instances.checkpoints import save_weights
from spn_instances.networks import RefinementNet
from spn_instances.refinement_data import RefinementSamples, Sample
from spn_instances.settings import RefinementSettings
from vos_shared.masks import VOID
from vos_shared.training.arguments import RunOptions
from vos_shared.training.optimisers import set_rate
from vos_shared.training.run import TrainingRun, unchanged

if TYPE_CHECKING:
    from lightning_fabric import Fabric

LOG_STEPS = 20
"""Steps over which logged losses are averaged."""
MAY_CHANGE = frozenset({"save_steps", "clip", "shorter_side"})
"""Settings that a resumed run may change."""


class Objective(nn.Module):
    """The model and its loss in one module, so that distributed training sees a single forward pass."""

    def __init__(self, model: RefinementNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Sample) -> Tensor:
        """Batch -> cross-entropy, without void pixels, summed over pixels and averaged over samples."""
        logits = self.model(batch["image"], batch["coarse"]).float()
        return F.cross_entropy(logits, batch["label"], ignore_index=VOID, reduction="sum") / len(logits)


def optimiser_of(model: RefinementNet, settings: RefinementSettings) -> Optimizer:
    """The optimiser of `RefinementSettings.rule`; ``sgd`` has the multipliers of caffe-spn.

    VGG-16 and the first layer of the mask learn with a tenth of the rate, biases with twice that of their layer.
    """
    if settings.rule == "adamw":
        everything = {"params": list(model.parameters()), "multiplier": 1.0}
        betas = settings.momentum, 0.999
        return AdamW([everything], settings.learning_rate, betas=betas, weight_decay=settings.weight_decay)
    groups: list[dict[str, Any]] = [
        {"params": [value], "multiplier": _multiplier(name)} for name, value in model.named_parameters()
    ]
    return SGD(groups, settings.learning_rate, settings.momentum, weight_decay=settings.weight_decay)


def _multiplier(name: str) -> float:
    layer, _, leaf = name.removeprefix("guidance.").partition(".")
    slow = 0.1 if layer.startswith(("conv", "rnn_conv1")) else 1.0
    return slow * (2.0 if leaf == "bias" and layer != "edge_conv7" else 1.0)


def train_refinement(
    model: RefinementNet,
    samples: RefinementSamples,
    settings: RefinementSettings,
    options: RunOptions,
    fabric: Fabric,
) -> Path | None:
    """Train to the last step, or until it is asked to stop; arguments, result and errors as `training.train`."""
    description = f"spn-instances refinement, width {model.architecture.width}, trained on {options.data}"
    objective, optimiser = fabric.setup(Objective(model.train()), optimiser_of(model, settings))

    def write_weights(path: Path) -> None:
        side = str(settings.shorter_side or "")
        save_weights(path, model, {"description": description, "shorter_side": side, "steps": str(run.step)})

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
        | {"network": model.architecture, "examples": len(samples.source), "data": repr(description)},
        remedy="lower --learning-rate",
    ) as run:
        for batch in run.batches(samples, settings.batch_size):
            rate = settings.rate(run.step)
            set_rate(optimiser, rate)
            loss = objective(batch)
            optimiser.zero_grad()
            fabric.backward(loss)
            fabric.clip_gradients(objective, optimiser, max_norm=settings.clip, error_if_nonfinite=False)
            optimiser.step()
            run.finished({"train/loss": loss}, {"train/lr": rate})
    return run.result
