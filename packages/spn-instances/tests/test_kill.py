"""A run that is killed in any stage and started again ends with the same masks."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from spn_instances.cli import main
from vos_shared.masks import read_mask
from vos_shared.testing import RunCommand

COMMAND = [sys.executable, "-c", "from spn_instances.cli import main; main()"]


def arguments(davis: Path, folder: Path, foreground: Path, refinement: Path) -> list[str]:
    return [
        "finetune", str(davis), "--device=cpu", "--weights", str(foreground), "--spn-weights", str(refinement),
        "--steps=20", "--learning-rate=1e-8", "--output", str(folder / "masks"), "--models", str(folder / "networks"),
        "--intermediate", str(folder / "maps"),
    ]  # fmt: skip


def kill_at(command: list[str], trigger: str, folder: Path) -> None:
    """Start a command and kill it as soon as a file that matches the pattern exists."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not (reached := any(folder.glob(trigger))) and process.poll() is None:
            time.sleep(0.002)
        process.kill()
    assert reached, f"the run ended before {trigger} was there"


def test_a_run_killed_in_each_stage_ends_with_the_same_masks(
    run_command: RunCommand, tmp_path: Path, davis: Path, foreground_weights: Path, refinement_weights: Path
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    weights = foreground_weights, refinement_weights
    uninterrupted = run_command(main, "spn-instances", *arguments(davis, whole, *weights))
    assert uninterrupted.code == 0, uninterrupted.stderr

    kept: dict[Path, int] = {}
    # The first file of a sequence exists while the foreground net is fine-tuned, before any network is kept.
    for trigger in (
        "masks/.partial/*", "networks/*/foreground-*", "networks/*/object-1-*", "maps/spn/*/00001_1.png",
    ):  # fmt: skip
        kill_at([*COMMAND, *arguments(davis, killed, *weights)], trigger, killed)
        found = {path: path.stat().st_mtime_ns for path in killed.glob("networks/*/*.safetensors")}
        assert found.items() >= kept.items(), "finished networks are not trained again"
        kept = found

    resumed = run_command(main, "spn-instances", *arguments(davis, killed, *weights))
    assert resumed.code == 0, resumed.stderr
    expected = sorted((whole / "masks").glob("*/*.png"))
    assert len(expected) == 4
    for path in expected:
        np.testing.assert_array_equal(read_mask(killed / path.relative_to(whole)), read_mask(path))
