"""Training: killed and resumed; and two processes with the gradient of a single one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

COMMAND = [sys.executable, "-c", "from dense_ulearn.cli import main; main()"]
SMALL = ["--crop=32", "--shorter-side", "32", "40", "--grid=4", "--reference-grid=2", "--batch=2", "--optimiser=sgd"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for name in "ab":
        (tmp_path / "videos" / name).mkdir(parents=True)
        for index in range(6):
            frame = Image.fromarray(random.integers(0, 256, (40, 56, 3), np.uint8))
            frame.save(tmp_path / "videos" / name / f"{index}.png")
    return tmp_path / "videos"


def train_command(videos: Path, output: Path, *more: str) -> list[str]:
    places = ["--videos", str(videos), "--output", str(output), "--device=cpu", "--workers=1", "--minutes=0"]
    return [*COMMAND, "train", "custom", *places, *SMALL, "--epochs=4", "--clips-per-video=2", *more]


def numbers(output: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def test_a_run_killed_and_resumed_equals_one_that_was_not(videos: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(train_command(videos, whole), check=True, env=ENVIRONMENT, capture_output=True)

    with subprocess.Popen(
        train_command(videos, killed), env=ENVIRONMENT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    ) as process:
        while process.poll() is None and not (killed / "log.jsonl").exists():
            time.sleep(0.01)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert not numbers(killed)[3:]  # It was stopped in the middle.

    subprocess.run(train_command(videos, killed, "--resume"), check=True, env=ENVIRONMENT, capture_output=True)
    expected, found = (load_file(output / "last.safetensors") for output in (whole, killed))
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    assert numbers(killed) == numbers(whole)


RANK = """
import sys
import torch
from dataclasses import replace
from dense_ulearn.augmentation import Views
from dense_ulearn.presets import CUSTOM, Augmentation, ObjectiveSettings
from dense_ulearn.objective import Objective
from vos_shared.runtime.distributed import fabric, rank, world_size

settings = replace(CUSTOM, augmentation=Augmentation(32, (32, 40)), objective=ObjectiveSettings(4, 2))
lightning = fabric("cpu", devices=world_size())
lightning.launch()
objective = Objective(settings, lightning)
objective.network.eval()  # Batch statistics would differ.
generator = torch.Generator().manual_seed(3)
whole = Views(*(torch.randint(256, (4, 3, 3, 32, 32), generator=generator, dtype=torch.uint8) for _ in range(2)),
              torch.tensor([[-0.7, 0, 0.1], [0, 0.7, -0.2]]).repeat(4, 1, 1))
share = 4 // world_size()
views = Views(*(part[rank() * share : (rank() + 1) * share] for part in whole))
losses = objective.losses(views, objective.draw_offsets(share, 0))
lightning.backward(losses.main)
main = lightning.all_reduce(losses.main.detach(), reduce_op="mean")
if rank() == 0:
    gradient = {name: parameter.grad for name, parameter in objective.network.named_parameters()}
    torch.save({"main": main, "gradient": gradient}, sys.argv[1])
"""


def test_two_processes_have_the_gradient_of_one_with_both_batches(tmp_path: Path) -> None:
    script = tmp_path / "rank.py"
    script.write_text(RANK)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    # The variables that torchrun sets; without a network torchrun itself spends a minute on name lookups.
    group = {**ENVIRONMENT, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    ranks = [{**group, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    one = [subprocess.Popen([sys.executable, str(script), str(tmp_path / "one")], env=ENVIRONMENT)]
    two = [subprocess.Popen([sys.executable, str(script), str(tmp_path / "two")], env=rank) for rank in ranks]
    assert [process.wait(timeout=300) for process in one + two] == [0, 0, 0]
    expected, found = (torch.load(tmp_path / name) for name in ("one", "two"))
    torch.testing.assert_close(found["main"], expected["main"], atol=1e-6, rtol=1e-6)
    for name, gradient in expected["gradient"].items():
        assert (found["gradient"][name] - gradient).norm() < 1e-4 * gradient.norm(), name
