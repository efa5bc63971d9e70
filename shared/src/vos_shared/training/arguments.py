"""The options that every ``train`` command shares."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vos_shared.cli import STOPPED
from vos_shared.errors import UserError
from vos_shared.runtime.cores import usable_cores
from vos_shared.terminal import escaped

if TYPE_CHECKING:
    from lightning_fabric import Fabric

RESUME: Final = "resume.pt"
"""The file in a run's folder from which it is resumed."""


@dataclass(frozen=True)
class RunOptions:
    """Output folder of a run, how often it is written, and how samples are read.

    Attributes:
        folder: output folder with `RESUME`, last.safetensors, log.jsonl and tensorboard/.
        resume: continue from `RESUME`.
        minutes: wall time between two writes of `RESUME` and last.safetensors.
        workers: processes that read samples; with 0 the training process reads them itself.
        data: description of the training data, for the metadata of the weights.
    """

    folder: Path
    resume: bool = False
    minutes: float = 5.0
    workers: int = 0
    data: str = "unnamed data"


@dataclass(frozen=True, kw_only=True)
class RunArguments:
    """Output folder and devices of a training run."""

    output: Path
    """Output folder of the run: resume.pt, last.safetensors, log.jsonl, tensorboard/."""
    resume: bool = False
    """Resume the run in OUTPUT exactly where its resume.pt was written."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    precision: str = "fp32"
    """fp32, or mixed precision with bf16 or fp16."""
    devices: int = 1
    """Processes (GPUs) on each machine, each with its own batch; under torchrun, torchrun sets the number."""
    nodes: int = 1
    """Number of machines; under torchrun, torchrun sets it."""
    workers: int = field(default_factory=lambda: min(4, usable_cores()))
    """Processes that read data for each GPU; with 0 the training process reads them itself. By default 4, or fewer on a
    machine with fewer cores."""
    minutes: float = 5.0
    """Wall time between two writes of resume.pt and last.safetensors; 0 writes after every step."""

    def launch(self) -> Fabric:
        """Check the options and start the processes.

        Raises:
            UserError: an invalid option, a folder that does not fit --resume, or no such device.
            MissingExtra: Lightning Fabric is not installed.
        """
        from torch.distributed import DistError

        from vos_shared.runtime.distributed import fabric

        self.check()
        launched = fabric(self.device, self.precision, devices=self.devices, nodes=self.nodes)
        try:
            launched.launch()
        except RuntimeError as error:
            # For a port in use, torch 2.6 raises a plain RuntimeError.
            if not isinstance(error, DistError) and "EADDRINUSE" not in str(error):
                raise
            where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
            raise UserError(
                f"training: the processes cannot meet at {where} ({str(error).splitlines()[0]}); if another program "
                "has that port, set MASTER_PORT, or torchrun's --master-port, to another"
            ) from error
        if launched.world_size > 1:  # What `shard` reads; torchrun sets both, and Fabric's own launcher not the rank.
            os.environ.update(RANK=str(launched.global_rank), WORLD_SIZE=str(launched.world_size))
        return launched

    def check(self) -> None:
        """Check the options before any work.

        Raises:
            UserError: an invalid option, or a folder that does not fit --resume.
        """
        if self.workers < 0:
            raise UserError(f"training: --workers is {self.workers}; give 0 or more")
        if not 0 <= self.minutes < math.inf:
            raise UserError(f"training: --minutes is {self.minutes}; give 0 or more")
        if self.output.exists() and not self.output.is_dir():
            raise UserError(f"training: --output {self.output} is a file; give a folder")
        there = (self.output / RESUME).is_file()
        if self.resume and not there:
            raise UserError(f"training: {self.output} holds no run to resume ({RESUME}); leave out --resume")
        if there and not self.resume:
            raise UserError(f"training: {self.output} already holds a run; choose another --output, or add --resume")

    def run_options(self, data: str) -> RunOptions:
        """Of this run; `data` describes the training data."""
        return RunOptions(self.output, self.resume, self.minutes, self.workers, data)

    def ended(self, last: Path | None, fabric: Fabric) -> int:
        """Print how the run ended: the path of its weights, or, for None, how to resume it.

        Returns:
            The exit code.
        """
        if fabric.is_global_zero:
            print(escaped(str(last or f"stopped; continue with --resume --output {self.output}")))
        return 0 if last else STOPPED
