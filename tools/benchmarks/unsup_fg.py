"""unsup-fg: do records keep up with training, and students beside the figures of the official graphs.

TensorFlow cannot run beside ours here without its extra, so its column repeats what the official graphs took on two
shared cores of an AMD EPYC with one image at a time (TensorFlow 2.21, oneDNN on); read it as an order of magnitude.
`python tools/bench.py videopca` has the teacher.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import torch

from benchmarks._measure import Row, measured
from unsup_fg.data import StudentSamples
from unsup_fg.networks import build
from unsup_fg.presets import PUBLISHED
from unsup_fg.records import Records, StudentRecord
from unsup_fg.settings import STUDENTS, Architecture, StudentName
from unsup_fg.students import Student
from unsup_fg.tfrecords import RecordWriter
from unsup_fg.training import Objective
from vos_shared.runtime.device import choose_device
from vos_shared.training.optimisers import TensorFlowAdam

TENSORFLOW: Final = {"lowres": 1.58, "basic-unet": 0.40, "dense-unet": 0.21, "dilate-unet": 0.75}
"""Seconds an image of the official graphs."""
RECORDS: Final = 16


def run(
    students: tuple[StudentName, ...] = STUDENTS,
    width: float = 1.0,
    batch: int = 4,
    rounds: int = 2,
    threads: int = 2,
    device: str = "auto",
    train: bool = True,
) -> list[Row]:
    """Reader, training step and inference of each student, fastest of some rounds.

    Args:
        students: which.
        width: factor of the published numbers of channels; TensorFlow's figures are of 1.
        batch: images at once.
        rounds: repetitions of each measurement.
        threads: of PyTorch.
        device: auto, cpu, cuda, cuda:1 or mps.
        train: also measure training steps, which take several times longer than the rest.
    """
    torch.set_num_threads(threads)
    target = choose_device(device)
    with TemporaryDirectory() as folder:
        records = _records(Path(folder))
        return [_row(name, width, batch, rounds, target, records, train=train) for name in students]


def _records(folder: Path) -> Records:
    random = np.random.default_rng(0)
    with RecordWriter([folder / "train-00000-of-00001"]) as writer:
        for index in range(RECORDS):
            frame = random.integers(0, 256, (256, 256, 3), np.uint8)
            writer.write(0, StudentRecord.of(f"{index}.png", frame, frame[..., 0]).example())
    return Records(folder)


def _row(
    name: StudentName, width: float, batch: int, rounds: int, device: torch.device, records: Records, *, train: bool
) -> Row:
    architecture = Architecture(name, width)
    samples = StudentSamples(records, architecture, PUBLISHED[name], batch)

    def cost(work: Callable[[], object]) -> tuple[float, float]:
        """Seconds of the wall clock and of the processor."""
        walls, cpus, _ = zip(*(measured(work, device) for _ in range(rounds)), strict=True)
        return min(walls) / 1000, min(cpus) / 1000

    def seconds(work: Callable[[], object]) -> float:
        return cost(work)[0]

    row: Row = {
        "student": name,
        "reader, samples/s": batch / seconds(lambda: [samples[0, slot] for slot in range(batch)]),
    }
    if train:
        row["training, samples/s"] = batch / seconds(_training_step(architecture, samples, batch, device))
    frames = [np.random.default_rng(slot).integers(0, 256, (480, 854, 3), np.uint8) for slot in range(batch)]
    student = Student(build(architecture), architecture.input_size, device, torch.float32)
    row["one frame, s"], row["one frame, CPU s"] = cost(lambda: student.maps(frames[:1]))
    wall, cpu = cost(lambda: student.maps(frames))
    row["batched, s a frame"], row["batched, CPU s a frame"] = wall / batch, cpu / batch
    row["TensorFlow, s a frame"] = TENSORFLOW[name] if width == 1 else None
    return row


def _training_step(
    architecture: Architecture, samples: StudentSamples, batch: int, device: torch.device
) -> Callable[[], None]:
    objective = Objective(build(architecture).to(device).to(memory_format=torch.channels_last).train())
    optimiser = TensorFlowAdam([p for p in objective.parameters() if p.requires_grad], lr=1e-3)
    items = [samples[0, slot] for slot in range(batch)]
    sample = {key: torch.stack([item[key] for item in items]).to(device) for key in ("image", "label")}

    def step() -> None:
        loss, _ = objective(sample)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step
