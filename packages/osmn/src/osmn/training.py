"""Training: both stages and online fine-tuning are this one loop with other settings (specification, section 10)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from osmn.data import Sample, Source, TrainingStream
from osmn.losses import balanced_cross_entropy, weight_regulariser
from osmn.networks import OSMN
from osmn.networks.lite import LiteNet, LiteVisualModulator, first_blocks
from osmn.presets import SampleSettings, TrainingSettings
from osmn.snapshots import save_snapshot
from vos_shared.errors import BadWeights, UserError
from vos_shared.runtime.agreement import after_each, agreed_items, only_run, require_no_run
from vos_shared.training import (
    ResumeFile,
    StopRequest,
    TrainingLog,
    is_finite,
    leave_process_group,
    lost_workers_told,
    progress_bar,
    worker_items,
)
from vos_shared.training.optimisers import TensorFlowAdam

if TYPE_CHECKING:
    from lightning_fabric import Fabric


SNAPSHOT = "last.safetensors"
LOG_STEPS = 20
"""Distance of logged losses."""


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
            if isinstance(module, LiteNet | LiteVisualModulator):
                module.eval()
    for name, parameter in model.seg.named_parameters():
        fusion = name.partition(".")[0] in {"upscore_fuse", "score"}
        parameter.requires_grad_(fusion or not settings.fix_seg)
    for trunk, count in ((model.seg, settings.fixed_seg_blocks), (model.modulator, settings.fixed_modulator_blocks)):
        if count and isinstance(trunk, LiteNet | LiteVisualModulator):
            for block in first_blocks(trunk, count):
                block.eval().requires_grad_(False)  # Statistics are values, too.


def train(
    model: OSMN,
    source: Source,
    samples: SampleSettings,
    settings: TrainingSettings,
    folder: Path,
    fabric: Fabric,
    *,
    resume: bool = False,
    minutes: float = 5.0,
    notes: Mapping[str, str] | None = None,
) -> Path | None:
    """Train to the last step, or until it is asked to stop.

    Args:
        model: holds the start values.
        source: of the examples.
        samples: how they become input.
        settings: of the run.
        folder: gets snapshots, the resume file and logs.
        fabric: launched; decides device, precision and ranks.
        resume: go on from the folder's resume file.
        minutes: wall time between two writes of the resume file.
        notes: goes into the snapshots' metadata.

    Returns:
        The last snapshot, or None where the run was asked to stop early (it can be resumed).

    Raises:
        UserError: a folder that holds a run while `resume` is off or another run is at work in, examples that cannot be
            read (what was computed is saved), a loss that is no number.
        BadWeights: the resume file is missing or belongs to another run.
    """
    set_training_mode(model.to(memory_format=torch.channels_last), settings)
    optimiser = TensorFlowAdam([p for p in model.parameters() if p.requires_grad], lr=settings.learning_rate)
    objective, optimiser = fabric.setup(Objective(model), optimiser)
    run = _circumstances(model, source, samples, settings, fabric) | {"data": repr((notes or {}).get("description"))}
    with only_run(folder, fabric):
        saver = _Saver(folder, model, optimiser, fabric, run, notes or {}, samples.scale_value, minutes)
        if resume:
            saver.restore()
        else:
            require_no_run(folder, (saver.file.path.name, SNAPSHOT), fabric)
        _run(objective, optimiser, _batches(source, samples, settings, fabric, saver.step), settings, saver)
        saver.save_state()
        saver.save_weights()
    return folder / SNAPSHOT if saver.step >= settings.steps else None


class _Saver:
    """The steps that are done, and the files from which they can be had back; the first process writes them."""

    def __init__(
        self,
        folder: Path,
        model: OSMN,
        optimiser: Any,
        fabric: Fabric,
        run: dict[str, str],
        notes: Mapping[str, str],
        scale_value: float,
        minutes: float,
    ) -> None:
        self.folder, self.model, self.optimiser, self.fabric = folder, model, optimiser, fabric
        self.file = ResumeFile(folder / "resume.pt", minutes)
        self.step = 0
        self._made, self._notes, self._scale_value = run, notes, scale_value

    def save_state(self) -> None:
        """Write what a run goes on from.

        Raises:
            UserError: the weights hold what is no number: what is on disk is worth more.
        """
        if not is_finite(self.model):
            raise self.diverged("weights are no numbers any more", self.step)
        if self.fabric.is_global_zero:
            scaler = self.fabric.strategy.precision.state_dict()
            state = {"model": self.model.state_dict(), "optimiser": self.optimiser.state_dict(), "scaler": scaler}
            self.file.save({"step": self.step, "run": self._made, **state})

    def save_weights(self) -> None:
        """Write the snapshot."""
        if self.fabric.is_global_zero:
            words = {"description": f"osmn, {self.step} steps", **self._notes, "steps": str(self.step)}
            save_snapshot(self.folder / SNAPSHOT, self.model, self._scale_value, words)

    def save_what_is_due(self, snapshot_steps: int) -> None:
        """Both after every so many steps, and the state whenever the resume file is old."""
        snapshot = self.step % snapshot_steps == 0
        if snapshot or self.file.due():
            self.save_state()
        if snapshot:
            self.save_weights()

    def diverged(self, what: str, step: int) -> UserError:
        """What to say of it."""
        return UserError(
            f"osmn: the {what} at step {step}; lower --learning-rate; "
            f"if {self.file.path} is there, it holds an earlier step"
        )

    def restore(self) -> None:
        """Go on from the resume file.

        Raises:
            BadWeights: it is missing, or belongs to another run.
        """
        state = self.file.load()
        made = state.get("run")
        if not isinstance(made, dict):
            raise BadWeights(f"{self.file.path}: no resume file of osmn; choose another --output")
        for name, value in self._made.items():
            if made.get(name) != value:
                raise BadWeights(
                    f"{self.file.path}: made with {name.replace('_', ' ')} {made.get(name)}, not {value}; "
                    "use the same settings, or another --output"
                )
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.fabric.strategy.precision.load_state_dict(state["scaler"])
        self.step = int(state["step"])


def _run(objective: Any, optimiser: Any, batches: Iterator[Sample], settings: TrainingSettings, saver: _Saver) -> None:
    """All steps that remain, or those before the run is asked to stop."""
    fabric, leader = saver.fabric, saver.fabric.is_global_zero
    with (
        StopRequest() as stop,
        TrainingLog(saver.folder, saver.step + 1 if saver.step else 0, enabled=leader) as log,
        progress_bar(settings.steps, saver.step, enabled=leader) as bar,
        lost_workers_told(),
    ):

        def between_steps() -> None:
            log.check()
            saver.save_what_is_due(settings.save_steps)

        saved = after_each(batches, between_steps)
        for batch in agreed_items(saved, stop, fabric, before_error=saver.save_state):
            _seed_dropout(settings.seed, saver.step, fabric.global_rank)
            losses = _step(objective, optimiser, batch, settings.rate(saver.step), fabric)
            if not math.isfinite(losses["loss/main"]):  # In all processes alike.
                raise saver.diverged(f"loss is {losses['loss/main']}", saver.step + 1)
            saver.step += 1
            bar.update()
            if saver.step % LOG_STEPS == 0:
                log.scalars(saver.step, losses)
                bar.set_postfix({"loss": f"{losses['loss/main'] / settings.batch_size:.0f}"})


def _seed_dropout(seed: int, step: int, rank: int) -> None:
    """Dropout depends on step and process alone: a resumed run drops the same, two processes do not."""
    torch.manual_seed(int(np.random.default_rng([seed, 4, step, rank]).integers(2**63)))


def _step(objective: Any, optimiser: Any, batch: Sample, rate: float, fabric: Fabric) -> dict[str, float]:
    """One update; its losses, over all processes."""
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.zero_grad()
    losses = objective(batch)
    fabric.backward(sum(losses))
    optimiser.step()
    main, regulariser = fabric.all_reduce(torch.stack(losses).detach(), reduce_op="mean").tolist()  # type: ignore[union-attr]
    return {"loss/main": main, "loss/regulariser": regulariser, "rate": rate}


def _batches(
    source: Source, samples: SampleSettings, settings: TrainingSettings, fabric: Fabric, first: int
) -> Iterator[Sample]:
    """Batches from step `first` on; each rank takes its slots of every step."""
    world, rank = fabric.world_size, fabric.global_rank
    stream = TrainingStream(source, samples, settings.batch_size * world, settings.steps, settings.seed)
    slots = [
        step * stream.batch + rank * settings.batch_size + slot
        for step in range(first, settings.steps)
        for slot in range(settings.batch_size)
    ]
    loader = DataLoader(
        Subset(stream, slots),
        settings.batch_size,
        num_workers=settings.workers,
        pin_memory=fabric.device.type == "cuda",
        worker_init_fn=leave_process_group,
    )
    for batch in worker_items(loader):
        yield fabric.to_device(batch)


def _circumstances(
    model: OSMN, source: Source, samples: SampleSettings, settings: TrainingSettings, fabric: Fabric
) -> dict[str, str]:
    """What must be the same when a run goes on; its length and rate, for example, may change."""
    free = {"steps", "learning_rate", "drop_at", "save_steps", "workers"}
    fixed = {name: value for name, value in asdict(settings).items() if name not in free}
    return {name: repr(value) for name, value in fixed.items()} | {
        "network": repr(model.architecture),
        "samples": repr(samples),
        "examples": repr(len(source)),
        "processes": repr(fabric.world_size),
        "precision": fabric.strategy.precision.precision,
    }
