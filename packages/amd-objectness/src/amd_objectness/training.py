"""The training run: both networks from scratch, by view synthesis alone."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.optim import Adam

from amd_objectness.checkpoints import Weights, save_weights
from amd_objectness.collapse import CollapseWatch
from amd_objectness.data import TrainingPairs
from amd_objectness.losses import Losses, Objective
from amd_objectness.networks import AMD
from amd_objectness.pictures import training_picture
from amd_objectness.presets import TrainingSettings
from vos_shared.layers.quick_convolutions import use_quick_convolutions
from vos_shared.layers.sync_batch_norm import synchronise_batch_norms
from vos_shared.results import fingerprint
from vos_shared.training.arguments import RunOptions
from vos_shared.training.optimisers import set_rate
from vos_shared.training.run import TrainingRun, unchanged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lightning_fabric import Fabric

    from vos_shared.video import Video

LOG_STEPS = 10
"""Steps over which logged losses are averaged, as in the release."""


def train(
    model: AMD, videos: Sequence[Video], settings: TrainingSettings, options: RunOptions, fabric: Fabric
) -> Path | None:
    """Train to the last step, or until it is asked to stop.

    Args:
        model: holds the start values.
        videos: of two frames or more; image files rather than video files, so that single frames are cheap to read.
        settings: of the run.
        options: the output folder and how often it is written.
        fabric: launched; every process calls this function.

    Returns:
        Path of the last weights, or None if the run was asked to stop early (it can be resumed).

    Raises:
        UserError: as `TrainingRun`; a frame cannot be read (the steps before it are saved).
    """
    model.train().to(memory_format=torch.channels_last)
    use_quick_convolutions(model)
    if settings.sync_bn:
        synchronise_batch_norms(model)
    plain = Objective(model)
    rates = settings.optimisation
    optimiser = Adam(model.parameters(), rates.lr, weight_decay=rates.weight_decay, fused=True)
    objective, optimiser = fabric.setup(plain, optimiser)
    watch = CollapseWatch()
    with TrainingRun(
        options,
        fabric,
        model,
        optimiser,
        steps=settings.steps,
        seed=settings.seed,
        write_weights=lambda path: save_weights(path, _weights(model, run, settings, options)),
        log_steps=LOG_STEPS,
        must_match=_circumstances(model, videos, settings),
        extra={"collapse": watch},
        remedy="lower --lr",
    ) as run:
        pairs = TrainingPairs(videos, settings.sampling, settings.batch * fabric.world_size, settings.seed)
        for batch in run.batches(pairs, settings.batch):
            rate = rates.rate(run.step, settings.steps)
            set_rate(optimiser, rate)
            images = batch.float() / 255  # [B, 2, 3, S, S]
            flow_only = run.step < settings.flow_steps
            losses: Losses = objective(images, pixels=flow_only)
            optimiser.zero_grad()
            fabric.backward(losses.loss)
            if flow_only:  # Adam would turn weight decay alone into steps of full length.
                for parameter in model.appearance_parameters():
                    parameter.grad = None
            optimiser.step()
            watch.step(losses.shares)
            run.finished(_named(losses), {"train/lr": rate})
            _report(run, plain, images, watch, settings)
    return run.result


def _named(losses: Losses) -> dict[str, Tensor]:
    shares = {f"share/segment_{index}": share for index, share in enumerate(losses.shares, start=1)}
    return {"train/loss": losses.loss, **shares}


def _report(
    run: TrainingRun, objective: Objective, images: Tensor, watch: CollapseWatch, settings: TrainingSettings
) -> None:
    """Report a collapse of the segments, and draw a picture every `TrainingSettings.picture_steps` steps."""
    if not run.fabric.is_global_zero:
        return
    if run.step % LOG_STEPS == 0 and (message := watch.message()):
        run.log.scalars(run.step, {}, message=message)
        print(f"training, step {run.step}: {message}", file=sys.stderr)
    if run.step % settings.picture_steps == 0:
        run.picture("train", picture_of(objective, images, run.fabric))


@torch.no_grad()
def picture_of(objective: Objective, images: Tensor, fabric: Fabric, pairs: int = 2) -> npt.NDArray[np.uint8]:
    """Draw the first pairs of a batch with the running statistics of the batch norms; see `training_picture`.

    Args:
        objective: holds the networks; they are not changed.
        images: RGB in 0..1, float [B, 2, 3, H, W].
        fabric: gives the precision.
        pairs: number of pairs to draw.
    """
    objective.eval()
    with fabric.autocast():
        views = objective.views(images[:pairs], dense=True)
    objective.train()
    return training_picture(views, pairs)


def _weights(model: AMD, run: TrainingRun, settings: TrainingSettings, options: RunOptions) -> Weights:
    facts = {
        "steps": run.step,
        "hours": f"{run.seconds / 3600:.2f}",
        "settings": settings,
        "shorter_side": test_side(settings),
    }
    words = {name: str(value) for name, value in facts.items()}
    return Weights(model.state_dict(), model.architecture, f"trained on {options.data}, {run.step} steps", True, words)


def test_side(settings: TrainingSettings) -> int:
    """Length in pixels of the shorter side at test time: 0.98 of that in training, as released."""
    return int(settings.sampling.shorter_side * 0.98)


def _circumstances(model: AMD, videos: Sequence[Video], settings: TrainingSettings) -> dict[str, object]:
    """What must be unchanged when a run is resumed."""
    return unchanged(settings, {"picture_steps"}) | {
        "network": model.architecture,
        "number of videos": len(videos),
        "videos (hash of their names)": fingerprint([video.name for video in videos]),
    }
