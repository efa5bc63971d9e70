"""A training run in a folder: steps, epochs, validation, snapshots, logs, and going on where it was killed."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor

from dense_ulearn.augmentation import Views
from dense_ulearn.data import ClipBatches, ClipDataset, clip_batches
from dense_ulearn.presets import TrainingSettings
from dense_ulearn.sources import video_names
from dense_ulearn.trainer import Trainer
from dense_ulearn.validation import Validation
from vos_shared.errors import UserError
from vos_shared.results import fingerprint
from vos_shared.runtime.agreement import after_each, agreed_items, only_run, require_no_run, together
from vos_shared.training import (
    BestSnapshots,
    ResumeFile,
    RunningMeans,
    StopRequest,
    TrainingLog,
    is_finite,
    lost_workers_told,
    progress_bar,
)

if TYPE_CHECKING:
    from lightning_fabric import Fabric

RESUME, LAST, LOG = "resume.pt", "last.safetensors", "log.jsonl"
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
        UserError: settings that do not fit together, a folder that holds another run, frames or validation masks that
            cannot be read (what was computed is saved), a loss that is no number, a reader that was killed.
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
    with only_run(run.folder, fabric):
        loop = _Loop(trainer, keys, run, validation, fingerprint(video_names(clips.videos)))
        if run.resume:
            loop.go_on()
        else:
            loop.begin()
        with (
            TrainingLog(run.folder, loop.step + 1, enabled=fabric.is_global_zero) as log,
            StopRequest() as stop,
            lost_workers_told(),
        ):
            finished = loop.run(clips, log, stop)
    return run.folder / LAST if finished else None


class _Loop:
    def __init__(
        self, trainer: Trainer, keys: ClipBatches, where: Run, validation: Validation | None, videos: str
    ) -> None:
        self.trainer, self.keys, self.where, self.validation, self.videos = trainer, keys, where, validation, videos
        self.file = ResumeFile(where.folder / RESUME, where.minutes)
        self.best = BestSnapshots(where.folder / "best", where.keep)
        self.means = RunningMeans()
        self.step = 0
        self.seconds = 0.0
        self.leader = trainer.fabric.is_global_zero

    def begin(self) -> None:
        """Write the first resume file, so that a folder without one holds no run."""
        require_no_run(self.where.folder, (self.file.path.name, LAST, LOG, "best"), self.trainer.fabric)
        together(self._save_state, self.trainer.fabric)

    def go_on(self) -> None:
        """Take over everything from the resume file.

        Raises:
            UserError: it comes from a run with other settings, other data or on other devices.
        """
        state = self.file.load()
        for what, value in self._circumstances().items():
            before = state.get("circumstances", {}).get(what, value)
            if before != value:
                raise UserError(
                    f"training: {self.file.path} was written with {what} {before}, not {value}; "
                    "a run can only go on as it began: give the same, or start another with --weights"
                )
        self.trainer.load_state(state)
        self.step, self.seconds, self.means = state["step"], state["seconds"], RunningMeans(state["means"])
        self.keys.start = self.step
        if self.leader:
            self.best.drop_beyond(state["best"])

    def run(self, clips: ClipDataset, log: TrainingLog, stop: StopRequest) -> bool:
        """All steps that remain; False if it was asked to stop before the end."""
        batches = after_each(clip_batches(clips, self.keys, self.where.workers), lambda: self._between_steps(log))
        with progress_bar(self.keys.steps, self.step, enabled=self.leader) as bar:
            for views in agreed_items(batches, stop, self.trainer.fabric, before_error=self._save):
                epoch, position = divmod(self.step, self.keys.steps_per_epoch)
                self.trainer.set_epoch(epoch)
                loss = self._step(views)
                bar.set_postfix(epoch=epoch, loss=f"{loss:.3f}", refresh=False)
                bar.update()
                last = position == self.keys.steps_per_epoch - 1
                if last or self.step % LOG_STEPS == 0:
                    self._log_means(log, epoch)
                if last and self.leader and epoch % self.trainer.settings.picture_epochs == 0:
                    log.picture(self.step, "train", self.trainer.pictures(views))
                if last and self.validation is not None and epoch % self.trainer.settings.validate_epochs == 0:
                    self._validate(log, epoch)
        self._save()
        return self.step >= self.keys.steps

    def _between_steps(self, log: TrainingLog) -> None:
        log.check()
        if self.file.due():
            self._save()

    def _step(self, views: Views[Tensor]) -> float:
        """One update; its loss, over all processes."""
        started = time.monotonic()
        losses = self.trainer.step(views)
        mine = torch.stack([losses.main, losses.temp, losses.cross_key]).detach()
        main, temp, cross_key = self.trainer.fabric.all_reduce(mine, reduce_op="mean").tolist()  # type: ignore[union-attr]
        self.step += 1
        if not math.isfinite(main):  # In all processes alike.
            self._refuse_divergence(f"loss is {main}")
        self.means.add({"main": main, "temp": temp, "cross_key": cross_key})
        self.seconds += time.monotonic() - started
        return float(main)

    def _refuse_divergence(self, what: str) -> NoReturn:
        raise UserError(
            f"training: the {what} at step {self.step}; start another run with a lower --lr or a higher --temperature. "
            f"What {self.where.folder} holds is from before"
        )

    def _log_means(self, log: TrainingLog, epoch: int) -> None:
        values = {f"train/{name}": value for name, value in self.means.take().items()}
        values["train/lr"] = self.trainer.optimiser.param_groups[0]["lr"]
        log.scalars(self.step, values, epoch=epoch, seconds=round(self.seconds, 1))

    def _validate(self, log: TrainingLog, epoch: int) -> None:
        """Measure and keep what improved; where that fails, save before all processes end.

        Raises:
            UserError: a frame or mask cannot be read, in the first process; another elsewhere.
            OSError: a file cannot be read or written.
        """
        try:
            together(lambda: self._measure(log, epoch), self.trainer.fabric)
        except (UserError, OSError):
            self._save()
            raise

    def _measure(self, log: TrainingLog, epoch: int) -> None:
        """In the first process alone."""
        if not self.leader or self.validation is None:
            return
        found = self.validation.measure(self.trainer)
        log.scalars(self.step, found.values, epoch=epoch)
        for tag, picture in found.pictures.items():
            log.picture(self.step, tag, picture)
        self.best.offer(
            found.score,
            f"epoch{epoch:03d}_score{found.score:.3f}_{found.layer}.safetensors",
            lambda path: self._snapshot(path, epoch, score=found.score, layer=found.layer),
        )

    def _save(self) -> None:
        """Save everything.

        Raises:
            UserError: the weights hold what is no number: what is on disk is worth more.
        """
        if not is_finite(self.trainer.network):
            self._refuse_divergence("weights are no numbers any more")
        self._save_state()
        if self.leader:
            self._snapshot(self.where.folder / LAST, max(self.step - 1, 0) // self.keys.steps_per_epoch)

    def _save_state(self) -> None:
        if self.leader:
            state = {"step": self.step, "seconds": self.seconds, "means": self.means.state(), "best": self.best.best}
            self.file.save({**self.trainer.state(), **state, "circumstances": self._circumstances()})

    def _circumstances(self) -> dict[str, Any]:
        """What the order of the clips and the arithmetic depend on, apart from the settings."""
        fabric = self.trainer.fabric
        return {
            "clips": self.keys.clips,
            "processes": fabric.world_size,
            "precision": str(fabric.strategy.precision.precision),
            "videos (hash of their names)": self.videos,
            "validation on": self.validation.names if self.validation else "nothing",
        }

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
