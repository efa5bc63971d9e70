"""A training run: epochs, learning rates, validation and snapshots around the objective."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from dense_ulearn.augmentation import Views
from dense_ulearn.data import ClipDataset, TrainingClips, steps_per_epoch
from dense_ulearn.objective import Objective
from dense_ulearn.presets import TrainingSettings
from dense_ulearn.sources import video_names
from dense_ulearn.validation import Validation
from vos_shared.checkpoints import safetensors_io
from vos_shared.results import fingerprint
from vos_shared.training.arguments import RunOptions
from vos_shared.training.run import TrainingRun, unchanged
from vos_shared.training.snapshots import BestSnapshots

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def train(
    settings: TrainingSettings,
    clips: ClipDataset,
    options: RunOptions,
    fabric: Fabric,
    *,
    validation: Validation | None = None,
    weights: dict[str, Tensor] | None = None,
    keep: int = 3,
) -> Path | None:
    """Train to the end, or until the first SIGTERM or Ctrl-C.

    Args:
        settings: what to compute.
        clips: training clips.
        options: the output folder and how often it is written.
        fabric: launched; every process calls this function.
        validation: what to measure after epochs.
        weights: state dict to start from; None: random values.
        keep: how many improved snapshots stay in `best/`.

    Returns:
        The last snapshot, or None where the run was asked to stop early (it can be resumed).

    Raises:
        UserError: as `TrainingRun`; settings that do not fit together, frames or validation masks that cannot be read
            (what was computed is saved).
        BadDataset: not enough videos for one batch.
    """
    objective = Objective(settings, fabric, weights)
    epoch_steps = steps_per_epoch(settings, len(clips), fabric.world_size)
    best = BestSnapshots(options.folder / "best", keep)
    with TrainingRun(
        options,
        fabric,
        objective.network,
        objective.optimiser,
        steps=(settings.epochs + 1) * epoch_steps,
        seed=settings.seed,
        write_weights=lambda path: snapshot(path, max(run.step - 1, 0) // epoch_steps, {}),
        must_match=_circumstances(settings, clips, validation),
        extra={"best": best} if fabric.is_global_zero else {},
        remedy="with a lower --lr or a higher --temperature",
    ) as run:

        def snapshot(path: Path, epoch: int, more: Mapping[str, object]) -> None:
            facts = {
                "description": f"trained on {options.data}, {run.step} steps",
                "step": run.step,
                "epoch": epoch,
                "hours": f"{run.seconds / 3600:.2f}",
                "settings": json.dumps(asdict(settings)),
                **more,
            }
            words = {name: str(value) for name, value in facts.items()}
            safetensors_io.save(path, objective.network.state_dict(), words)

        def validate(epoch: int) -> None:
            if validation is None or not fabric.is_global_zero:
                return
            found = validation.measure(objective)
            run.log.scalars(run.step, found.values, epoch=epoch)
            for tag, picture in found.pictures.items():
                run.picture(tag, picture)
            name = f"epoch{epoch:03d}_score{found.score:.3f}_{found.layer}.safetensors"
            more = {"score": found.score, "layer": found.layer}
            best.offer(found.score, name, lambda path: snapshot(path, epoch, more))

        samples = TrainingClips(clips, settings, fabric.world_size)
        for views in run.batches(samples, settings.batch):
            epoch, position = divmod(run.step, epoch_steps)
            last = position == epoch_steps - 1
            _step(objective, views, run, epoch, last=last)
            if last and epoch % settings.picture_epochs == 0 and fabric.is_global_zero:
                run.picture("train", objective.pictures(views))
            if last and epoch % settings.validate_epochs == 0:
                run.agree(partial(validate, epoch))
    return run.result


def _step(objective: Objective, views: Views[Tensor], run: TrainingRun, epoch: int, *, last: bool) -> None:
    """One update with the learning rates of the epoch."""
    objective.set_epoch(epoch)
    losses = objective(views, run.step)
    objective.optimiser.zero_grad()
    run.fabric.backward(losses.main)
    objective.optimiser.step()
    named = {f"train/{name}": getattr(losses, name) for name in ("main", "temp", "cross_key")}
    run.finished(named, {"train/lr": objective.optimiser.param_groups[0]["lr"]}, log=last, epoch=epoch)


def _circumstances(settings: TrainingSettings, clips: ClipDataset, validation: Validation | None) -> dict[str, object]:
    """Values that a resumed run must share: all but its length."""
    return unchanged(settings, {"epochs"}) | {
        "number of videos": len(clips),
        "videos (hash of their names)": fingerprint(video_names(clips.videos)),
        "validation on": validation.names if validation else "nothing",
    }
