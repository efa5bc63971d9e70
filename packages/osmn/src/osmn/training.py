"""Training: both stages are this loop with other settings (specification, section 10)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from osmn.checkpoints import save_weights
from osmn.data import Sample, Source, TrainingSamples
from osmn.losses import weight_regulariser
from osmn.networks import OSMN
from osmn.networks.lite import MobileNet
from osmn.presets import SampleSettings, TrainingSettings
from vos_shared.layers.losses import balanced_cross_entropy
from vos_shared.training.arguments import RunOptions
from vos_shared.training.optimisers import TensorFlowAdam, set_rate
from vos_shared.training.run import TrainingRun, unchanged

if TYPE_CHECKING:
    from lightning_fabric import Fabric

LOG_STEPS = 20
"""Steps over which logged losses are averaged."""
MAY_CHANGE = frozenset({"steps", "learning_rate", "drop_at", "save_steps"})
"""Settings that a resumed run may change."""


class Objective(nn.Module):
    """The model and its loss in one module, so that distributed training sees a single forward pass."""

    def __init__(self, model: OSMN) -> None:
        super().__init__()
        self.model = model

    def forward(self, sample: Sample) -> tuple[Tensor, Tensor]:
        """Batch -> (class-balanced loss, weight regulariser), both summed as in the official code."""
        gamma = self.model.visual_modulation(sample["visual"])
        logits = self.model(sample["image"], sample["spatial"], gamma)
        return balanced_cross_entropy(logits.float(), sample["label"]), weight_regulariser(self.model)


def set_training_mode(model: OSMN, settings: TrainingSettings) -> None:
    """Train mode, except for batch norms whose statistics are fixed; freezes what the settings fix."""
    model.train()
    if settings.fix_bn and model.modulator_sp is not None:
        model.modulator_sp.eval()
    if settings.fix_trunk_bn:
        for module in model.modules():
            if isinstance(module, MobileNet):
                module.eval()
    for name, parameter in model.seg.named_parameters():
        fusion = name.partition(".")[0] in {"upscore_fuse", "score"}
        parameter.requires_grad_(fusion or not settings.fix_seg)
    for trunk, count in ((model.seg, settings.fixed_seg_blocks), (model.modulator, settings.fixed_modulator_blocks)):
        if count and isinstance(trunk, MobileNet):
            for block in trunk.first(count):
                block.eval().requires_grad_(False)  # eval: batch statistics stay, too.


def train(
    model: OSMN,
    source: Source,
    samples: SampleSettings,
    settings: TrainingSettings,
    options: RunOptions,
    fabric: Fabric,
    *,
    shorter_side: int | None = None,
) -> Path | None:
    """Train to the last step, or until it is asked to stop.

    Args:
        model: holds the start values.
        source: training examples.
        samples: how examples become network input.
        settings: of the run.
        options: the output folder and how often it is written.
        fabric: launched; decides device, precision and ranks.
        shorter_side: length that frames' shorter side is scaled to at test time, for the weights' metadata.

    Returns:
        The last snapshot, or None where the run was asked to stop early (it can be resumed).

    Raises:
        UserError: as `TrainingRun`; examples that cannot be read (what was computed is saved).
        BadWeights: the resume file is missing, damaged, or of another program.
    """
    set_training_mode(model.to(memory_format=torch.channels_last), settings)
    optimiser = TensorFlowAdam([p for p in model.parameters() if p.requires_grad], lr=settings.learning_rate)
    objective, optimiser = fabric.setup(Objective(model), optimiser)
    description = f"osmn {model.architecture.base_model}, trained on {options.data}"

    def write_weights(path: Path) -> None:
        facts = {"description": description, "shorter_side": str(shorter_side or ""), "steps": str(run.step)}
        save_weights(path, model, samples.scale_value, facts)

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
            "samples": samples,
            "examples": len(source),
            "data": repr(description),
        },
        remedy="lower --learning-rate",
    ) as run:
        stream = TrainingSamples(source, samples, settings.batch_size * fabric.world_size, settings.seed)
        for batch in run.batches(stream, settings.batch_size):
            rate = settings.rate(run.step)
            set_rate(optimiser, rate)
            main, regulariser = objective(batch)
            optimiser.zero_grad()
            fabric.backward(main + regulariser)
            optimiser.step()
            run.finished({"train/main": main, "train/regulariser": regulariser}, {"train/lr": rate})
    return run.result
