"""A training run in a folder: steps, epochs, validation, snapshots, logs, and going on where it was killed."""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from dense_ulearn.augmentation import Views
from dense_ulearn.data import ClipBatches, ClipDataset, clip_batches
from dense_ulearn.losses import Losses
from dense_ulearn.presets import TrainingSettings
from dense_ulearn.trainer import Trainer
from dense_ulearn.validation import Validation
from vos_shared.errors import UserError
from vos_shared.training import (
    BestSnapshots,
    ResumeFile,
    RunningMeans,
    StopRequest,
    TrainingLog,
    progress_bar,
    wanted_by_any,
)

if TYPE_CHECKING:
    from lightning_fabric import Fabric

LAST = "last.safetensors"
LOG_STEPS = 10
"""Steps over which logged losses are averaged."""


@dataclass(frozen=True)
class Run:
    """Where a run writes, and how often.

    Attributes:
        folder: of the run: `resume.pt`, `last.safetensors`, `best/`, `log.jsonl`, `tensorboard/`.
        resume: go on from `resume.pt`.
        minutes: wall time between two writes of `resume.pt` and `last.safetensors`.
        workers: processes that prepare clips.
        keep: how many improved snapshots stay in `best/`.
        data: what was trained on, in words, for the snapshots' metadata.
    """

    folder: Path
    resume: bool = False
    minutes: float = 5.0
    workers: int = 2
    keep: int = 3
    data: str = ""


def train(
    settings: TrainingSettings,
    clips: ClipDataset,
    run: Run,
    fabric: Fabric,
    *,
    validation: Validation | None = None,
    weights: dict[str, Tensor] | None = None,
) -> Path | None:
    """Train to the end, or until the first SIGTERM or Ctrl-C.

    Args:
        settings: what to compute.
        clips: training clips.
        run: the folder and its habits.
        fabric: launched; every process calls this function.
        validation: what to measure after epochs.
        weights: state dict to start from.

    Returns:
        The last snapshot, or None where the run was asked to stop early (it can be resumed).

    Raises:
        UserError: settings that do not fit together, a folder that holds another run, frames that cannot be read.
    """
    trainer = Trainer(settings, fabric, weights)
    keys = ClipBatches(
        len(clips),
        settings.batch,
        settings.epochs + 1,
        settings.seed,
        clips_per_video=settings.clips_per_video,
        rank=fabric.global_rank,
        world=fabric.world_size,
    )
    loop = _Loop(trainer, keys, run, validation)
    if run.resume:
        loop.go_on()
    elif loop.file.path.exists():
        raise UserError(
            f"training: {run.folder} already holds a run; add --resume to go on with it or choose another --output"
        )
    with (
        TrainingLog(run.folder, loop.step + 1 if loop.step else 0, enabled=fabric.is_global_zero) as log,
        StopRequest() as stop,
    ):
        finished = loop.run(clips, log, stop)
    return run.folder / LAST if finished else None


class _Loop:
    def __init__(self, trainer: Trainer, keys: ClipBatches, where: Run, validation: Validation | None) -> None:
        self.trainer, self.keys, self.where, self.validation = trainer, keys, where, validation
        self.file = ResumeFile(where.folder / "resume.pt", where.minutes)
        self.best = BestSnapshots(where.folder / "best", where.keep)
        self.means = RunningMeans()
        self.step = 0
        self.seconds = 0.0
        self.leader = trainer.fabric.is_global_zero

    def go_on(self) -> None:
        """Take over everything from the resume file."""
        state = self.file.load()
        self.trainer.load_state(state)
        self.step, self.seconds, self.means = state["step"], state["seconds"], RunningMeans(state["means"])
        self.keys.start = self.step
        if self.leader:
            self.best.drop_beyond(state["best"])

    def run(self, clips: ClipDataset, log: TrainingLog, stop: StopRequest) -> bool:
        """All steps that remain; False if it was asked to stop before the end."""
        with progress_bar(self.keys.steps, self.step, enabled=self.leader) as bar:
            for views in clip_batches(clips, self.keys, self.where.workers):
                started = time.monotonic()
                epoch, position = divmod(self.step, self.keys.steps_per_epoch)
                self.trainer.set_epoch(epoch)
                losses = self._step(views)
                self.seconds += time.monotonic() - started
                bar.set_postfix(epoch=epoch, loss=f"{losses.main.item():.3f}", refresh=False)
                bar.update()
                last = position == self.keys.steps_per_epoch - 1
                if last or self.step % LOG_STEPS == 0:
                    self._log_means(log, epoch)
                if last:
                    self._end_epoch(log, epoch, views)
                if wanted_by_any(stop, self.trainer.fabric):
                    break
                if self.file.due():
                    self._save(epoch)
        self._save(epoch)
        return self.step == self.keys.steps

    def _step(self, views: Views[Tensor]) -> Losses:
        losses = self.trainer.step(views)
        self.means.add({name: getattr(losses, name).item() for name in ("main", "temp", "cross_key")})
        self.step += 1
        return losses

    def _log_means(self, log: TrainingLog, epoch: int) -> None:
        values = {f"train/{name}": value for name, value in self.means.take().items()}
        values["train/lr"] = self.trainer.optimiser.param_groups[0]["lr"]
        log.scalars(self.step, values, epoch=epoch, seconds=round(self.seconds, 1))

    def _end_epoch(self, log: TrainingLog, epoch: int, views: Views[Tensor]) -> None:
        settings, fabric = self.trainer.settings, self.trainer.fabric
        if self.leader and epoch % settings.picture_epochs == 0:
            log.picture(self.step, "train", self.trainer.pictures(views))
        if self.validation is None or epoch % settings.validate_epochs:
            return
        if self.leader:
            found = self.validation.measure(self.trainer)
            log.scalars(self.step, found.values, epoch=epoch)
            self.best.offer(
                found.score,
                f"epoch{epoch:03d}_score{found.score:.3f}_{found.layer}.safetensors",
                lambda path: self._snapshot(path, epoch, score=found.score, layer=found.layer),
            )
        fabric.barrier()

    def _save(self, epoch: int) -> None:
        if self.leader:
            state = {"step": self.step, "seconds": self.seconds, "means": self.means.state(), "best": self.best.best}
            self.file.save({**self.trainer.state(), **state})
            self._snapshot(self.where.folder / LAST, epoch)

    def _snapshot(self, path: Path, epoch: int, **more: object) -> None:
        words = f"trained on {self.where.data or 'videos'}, {self.step} steps"
        self.trainer.save_snapshot(
            path,
            description=words,
            step=self.step,
            epoch=epoch,
            hours=f"{self.seconds / 3600:.2f}",
            settings=json.dumps(dataclasses.asdict(self.trainer.settings)),
            **more,
        )
