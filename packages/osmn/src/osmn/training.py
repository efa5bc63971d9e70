"""Training: both stages and online fine-tuning are this one loop with other settings (specification, section 10)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
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
from osmn.optimiser import TensorFlowAdam
from osmn.presets import SampleSettings, TrainingSettings
from osmn.snapshots import save_snapshot
from vos_shared.errors import BadWeights, UserError
from vos_shared.training import (
    ResumeFile,
    StopRequest,
    TrainingLog,
    agreed_items,
    leave_process_group,
    only_run,
    progress_bar,
    worker_items,
)

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
                block.requires_grad_(False)


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
    saved = ResumeFile(folder / "resume.pt", minutes)
    found = [name for name in (saved.path.name, SNAPSHOT) if (folder / name).exists()]
    fabric.barrier()  # Nobody writes before everybody has looked.
    if found and not resume:
        raise UserError(
            f"osmn: {folder} already holds a run ({', '.join(found)}); choose another --output, or add --resume if its "
            "resume.pt is there"
        )
    run = _run(model, source, samples, settings, fabric) | {"data": repr((notes or {}).get("description"))}
    first = _restore(saved, model, optimiser, run, fabric) if resume else 0
    done = first

    def save_state() -> None:
        if fabric.is_global_zero:
            scaler = fabric.strategy.precision.state_dict()
            state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "scaler": scaler}
            saved.save({"step": done, "run": run, **state})

    def save_weights() -> None:
        if fabric.is_global_zero:
            words = {"description": f"osmn, {done} steps", **(notes or {}), "steps": str(done)}
            save_snapshot(folder / SNAPSHOT, model, samples.scale_value, words)

    def saving(batches: Iterable[Sample]) -> Iterator[Sample]:
        """The batches; between them what is due is saved, where an error ends all processes."""
        for batch in batches:
            yield batch
            snapshot = done % settings.save_steps == 0
            if snapshot or saved.due():
                save_state()
            if snapshot:
                save_weights()

    with (
        only_run(folder, fabric),
        StopRequest() as stop,
        TrainingLog(folder, first + 1 if first else 0, enabled=fabric.is_global_zero) as log,
        progress_bar(settings.steps, first, enabled=fabric.is_global_zero) as bar,
    ):
        batches = saving(_batches(source, samples, settings, fabric, first))
        for batch in agreed_items(batches, stop, fabric, before_error=save_state):
            _seed_dropout(settings.seed, done, fabric.global_rank)
            losses = _step(objective, optimiser, batch, settings.rate(done), fabric)
            if not math.isfinite(losses["loss/main"]):  # In all processes alike. What is saved is from before.
                raise UserError(
                    f"osmn: the loss is {losses['loss/main']} at step {done + 1}; lower --learning-rate; "
                    f"if {saved.path} is there, it holds an earlier step"
                )
            done += 1
            bar.update()
            if done % LOG_STEPS == 0:
                log.scalars(done, losses)
                bar.set_postfix({"loss": f"{losses['loss/main'] / settings.batch_size:.0f}"})
    save_state()
    save_weights()
    return folder / SNAPSHOT if done >= settings.steps else None


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


def _run(
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


def _restore(saved: ResumeFile, model: OSMN, optimiser: Any, run: dict[str, str], fabric: Fabric) -> int:
    state = saved.load()
    made = state.get("run")
    if not isinstance(made, dict):
        raise BadWeights(f"{saved.path}: no resume file of osmn; choose another --output")
    for name, value in run.items():
        if made.get(name) != value:
            raise BadWeights(
                f"{saved.path}: made with {name.replace('_', ' ')} {made.get(name)}, not {value}; "
                "use the same settings, or another --output"
            )
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    fabric.strategy.precision.load_state_dict(state["scaler"])
    return int(state["step"])
