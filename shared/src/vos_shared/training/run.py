"""A training run in a folder: everything but its step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm import tqdm

from vos_shared.errors import BadWeights, UserError
from vos_shared.runtime.device import autocast
from vos_shared.runtime.memory import freed_memory_kept
from vos_shared.runtime.seeding import seed_everything
from vos_shared.training.agreement import (
    FAILURES,
    agreed,
    attempt,
    leaving_others,
    most_urgent,
    only_run,
    own_or_other,
    require_no_run,
)
from vos_shared.training.arguments import RESUME, RunOptions
from vos_shared.training.batches import lost_workers_told, read_batches
from vos_shared.training.log import TrainingLog
from vos_shared.training.resume import ResumeFile
from vos_shared.training.stop import StopRequest

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from lightning_fabric import Fabric

T = TypeVar("T")

LAST: Final = "last.safetensors"
"""The file in a run's folder that holds its newest weights."""
_GO_ON, _STOP, _FAILED = range(3)
_END: Final = object()


class Stateful(Protocol):
    """An object whose state is saved and restored with a run."""

    def state_dict(self) -> dict[str, Any]:
        """The state, as tensors and plain values."""

    def load_state_dict(self, state: dict[str, Any]) -> object:
        """Restore a state that `state_dict` returned."""


class TrainingRun:
    """Everything about a training run but its step: folder, lock, resume file, log, progress bar, end.

    Use it as a context manager, in all processes that train together::

        with TrainingRun(options, fabric, network, optimiser, steps=1000, write_weights=write) as run:
            for batch in run.batches(samples, 8):
                loss = objective(batch)
                optimiser.zero_grad()
                fabric.backward(loss)
                optimiser.step()
                run.finished({"train/loss": loss}, {"train/lr": rate})
        return run.result

    The global random generators are seeded by (seed, step, rank) before each step. A run that is killed and resumed
    therefore computes the same values as an uninterrupted one, dropout included.

    Args:
        options: output folder, which is created if missing and holds `RESUME`, `LAST`, ``log.jsonl`` and
            ``tensorboard/``; how often it is written; whether to resume.
        fabric: a launched Fabric.
        network: the module with its initial weights, before `Fabric.setup`.
        optimiser: the optimiser that `Fabric.setup` returned.
        steps: total number of steps.
        write_weights: writes the weights to the given path; called in the first process only.
        seed: seed of the random generators.
        save_steps: also save every `save_steps` steps.
        log_steps: number of steps over which logged losses are averaged.
        must_match: settings by name; a run can only be resumed with the same values.
        extra: further objects whose state is saved, by name.
        remedy: advice in the error about losses that are not finite.

    Attributes:
        step: number of finished steps.
        log: the log of the run, for further numbers and pictures.
        seconds: time spent in finished steps, including the runs that this one resumes.
    """

    def __init__(
        self,
        options: RunOptions,
        fabric: Fabric,
        network: nn.Module,
        optimiser: Any,
        *,
        steps: int,
        write_weights: Callable[[Path], object],
        seed: int = 0,
        save_steps: int | None = None,
        log_steps: int = 10,
        must_match: Mapping[str, object] | None = None,
        extra: Mapping[str, Stateful] | None = None,
        remedy: str = "lower the learning rate",
    ) -> None:
        self.folder, self.fabric, self.network, self.optimiser = options.folder, fabric, network, optimiser
        self.steps, self.step, self.seconds = steps, 0, 0.0
        self._write_weights, self._seed, self._save_steps, self._log_steps = write_weights, seed, save_steps, log_steps
        self._options, self._remedy = options, remedy
        self._must_match = {name: str(value) for name, value in (must_match or {}).items()} | {
            "number of processes": str(fabric.world_size),
            "precision": str(fabric.strategy.precision.precision),
        }
        self._extra = dict(extra or {})
        self._file = ResumeFile(self.folder / RESUME, options.minutes)
        self._sums: dict[str, Tensor] = {}
        self._summed = 0
        self._stack = ExitStack()

    @property
    def result(self) -> Path | None:
        """Path of the final weights; None if the run was stopped before its last step."""
        return self.folder / LAST if self.step >= self.steps else None

    def __enter__(self) -> Self:
        """Lock the folder, then start the run or restore it.

        Raises:
            UserError: the folder holds a run and `resume` is off; another run uses it; the resume file was written with
                other settings.
            BadWeights: the resume file is missing, damaged, or not one of ours.
            MissingExtra: TensorBoard is not installed.
        """
        leader = self.fabric.is_global_zero
        with ExitStack() as stack:
            stack.enter_context(only_run(self.folder, self.fabric))
            stack.enter_context(leaving_others(self.folder, self.fabric))
            if self._options.resume:
                self._restore()
            else:
                require_no_run(self.folder, (RESUME, LAST, "log.jsonl", "best"), self.fabric)
            first = self.step + 1 if self.step else 0
            self.log = stack.enter_context(TrainingLog(self.folder, first, enabled=leader))
            self._stop = stack.enter_context(StopRequest())
            bar: tqdm[Any] = tqdm(
                total=self.steps, initial=self.step, unit="step", disable=not leader, dynamic_ncols=True, smoothing=0.05
            )
            self._bar = stack.enter_context(bar)
            stack.enter_context(freed_memory_kept(self.fabric.device))
            full = self.fabric.strategy.precision.precision == "32-true"
            stack.enter_context(autocast(self.fabric.device, torch.float32) if full else nullcontext())
            stack.enter_context(lost_workers_told())
            if not self._options.resume:  # From now on the folder holds a run.
                self.agree(self._save_state)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *raised: Any) -> bool | None:
        return self._stack.__exit__(*raised)

    def batches(self, samples: Dataset[Any], size: int) -> Iterator[Any]:
        """Yield the batches of the remaining steps, on the device of this process; see `over`.

        Args:
            samples: samples by (step, slot), see `read_batches`.
            size: samples per step and process.

        Raises:
            UserError: an error from `samples`, raised in all processes.
            OSError: the same.
        """
        workers = self._options.workers
        return self.over(
            read_batches(samples, self.fabric, first=self.step, steps=self.steps, batch=size, workers=workers)
        )

    def over(self, batches: Iterable[T]) -> Iterator[T]:
        """Yield the batches of the remaining steps; ends early, in all processes, if one of them is asked to stop.

        Saves the run at regular times, at the end, and before an error ends it.

        Args:
            batches: one batch for each remaining step; the same number in every process.

        Raises:
            UserError: an error from `batches`; in the other processes, one that says that another process failed.
            OSError: the same; or a file of the run cannot be written.
        """
        iterator = iter(batches)
        while True:
            batch = attempt(lambda: self._next(iterator))
            if batch is _END:
                break
            failed = isinstance(batch, FAILURES)
            code = most_urgent(_FAILED if failed else _STOP if self._stop.wanted else _GO_ON, self.fabric)
            if code == _FAILED:
                self.save()
                raise own_or_other(batch)
            if code == _STOP:
                break
            key = [self._seed, 4, self.step, self.fabric.global_rank]
            seed_everything(int(np.random.default_rng(key).integers(2**63)))
            expected, started = self.step + 1, time.monotonic()
            yield batch  # type: ignore[misc]  # It is not an error.
            assert self.step == expected, "call `finished` once after each step"
            self.seconds += time.monotonic() - started
        self.agree(self.save)

    def _next(self, iterator: Iterator[T]) -> T | object:
        """The next batch, after a save that is due; the caller reports a failure to the other processes."""
        self.log.check()
        if self._file.due() or (self._save_steps and self.step and self.step % self._save_steps == 0):
            self.save()
        return next(iterator, _END)

    def finished(
        self,
        losses: Mapping[str, Tensor],
        numbers: Mapping[str, float] | None = None,
        *,
        log: bool = False,
        **context: float,
    ) -> None:
        """Finish a step: count it, and log the mean losses every `log_steps` steps.

        Args:
            losses: scalar losses of this process by tag, the same tags in all processes. They stay on their device, so
                that the host need not wait for it.
            numbers: further numbers to log by tag, such as the learning rate.
            log: log the means now, too.
            context: values for ``log.jsonl`` only, such as the epoch.

        Raises:
            UserError: a loss is NaN or infinite; raised in all processes.
        """
        self.step += 1
        self._summed += 1
        mine = torch.stack([loss.detach().float() for loss in losses.values()])
        # The mean over all processes, since a resumed run continues from the sums of the first process.
        everyone = self.fabric.all_reduce(mine, reduce_op="mean") if self.fabric.world_size > 1 else mine
        assert isinstance(everyone, Tensor)
        for tag, value in zip(losses, everyone, strict=True):
            self._sums[tag] = self._sums[tag] + value if tag in self._sums else value
        self._bar.update()
        if log or self.step % self._log_steps == 0:
            self._log_means(numbers or {}, context)

    def agree(self, work: Callable[[], T]) -> T:
        """Do work that may fail in a single process; if it does, all processes save and raise.

        Raises:
            UserError: an error from `work`, or one that says that another process failed.
            OSError: the same.
        """
        try:
            return agreed(attempt(work), self.fabric)
        except FAILURES:
            if self.step:
                attempt(self.save)
            raise

    def picture(self, tag: str, image: npt.NDArray[np.uint8]) -> None:
        """Log a picture, uint8 RGB [H, W, 3], at the current step."""
        self.log.picture(self.step, tag, image)

    def save(self) -> None:
        """Write the resume file and the weights, in the first process.

        Raises:
            UserError: weights or losses contain NaN or infinity; the files from before stay.
        """
        if not all(bool(parameter.isfinite().all()) for parameter in self.network.parameters()):
            self._refuse("weights contain NaN or infinity")
        for tag, value in self._sums.items():
            if not value.isfinite():
                self._refuse(f"loss {tag} is {value.item()}")
        self._save_state()
        if self.fabric.is_global_zero:
            self._write_weights(self.folder / LAST)

    def _save_state(self) -> None:
        if not self.fabric.is_global_zero:
            return
        self._file.save(
            {
                "step": self.step,
                "seconds": self.seconds,
                "run": self._must_match,
                "network": self.network.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "scaler": self.fabric.strategy.precision.state_dict(),
                "losses": [self._summed, dict(self._sums)],
                "extra": {name: item.state_dict() for name, item in self._extra.items()},
            }
        )

    def _restore(self) -> None:
        state = self._file.load()
        run = state.get("run")
        if not isinstance(run, dict):
            raise BadWeights(f"{self._file.path} was written by another program; choose another --output")
        for name, value in self._must_match.items():
            if run.get(name) != value:
                raise UserError(
                    f"training: {self._file.path} was written with {name} {run.get(name)}, not {value}; "
                    "give the same to resume, or choose another --output"
                )
        try:
            self._load(state)
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError) as reason:
            words = str(reason).strip().splitlines() or [type(reason).__name__]
            raise BadWeights(f"{self._file.path} is damaged ({words[0]}); begin again in another --output") from reason

    def _load(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.fabric.strategy.precision.load_state_dict(state["scaler"])
        for name, item in self._extra.items():
            item.load_state_dict(state["extra"][name])
        self.step, self.seconds, (self._summed, sums) = state["step"], state["seconds"], state["losses"]
        self._sums = {tag: value.to(self.fabric.device) for tag, value in sums.items()}

    def _log_means(self, numbers: Mapping[str, float], context: Mapping[str, float]) -> None:
        """Log the means of the losses; only here does the host wait for the device."""
        sums = torch.stack(list(self._sums.values()))
        means = dict(zip(self._sums, (sums / self._summed).tolist(), strict=True))
        for tag, mean in means.items():
            if not math.isfinite(mean):  # The means, and so the error, are the same in all processes.
                self._refuse(f"loss {tag} is {mean}")
        self.log.scalars(self.step, {**means, **numbers}, **context, seconds=round(self.seconds, 1))
        self._bar.set_postfix({tag.rpartition("/")[2]: f"{mean:.3g}" for tag, mean in means.items()})
        self._sums, self._summed = {}, 0

    def _refuse(self, what: str) -> NoReturn:
        raise UserError(
            f"training: the {what} at step {self.step}; start another run: {self._remedy}. "
            f"The files in {self.folder} are from before"
        )


def unchanged(settings: DataclassInstance, may_change: Collection[str] = ()) -> dict[str, object]:
    """Settings for `must_match` by readable name, without those that may change when a run is resumed."""
    names = [field.name for field in fields(settings) if field.name not in may_change]
    return {name.replace("_", " "): getattr(settings, name) for name in names}
