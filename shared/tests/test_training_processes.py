"""Several processes that train together: the numbers of a single process, and a common end."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vos_shared.checkpoints import safetensors_io
from vos_shared.checkpoints.torch_pickle import load_torch

pytest.importorskip("lightning_fabric")


def weights(folder: Path) -> dict[str, Tensor]:
    return safetensors_io.load(folder / "last.safetensors")[0]


def logged(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def step_of(folder: Path) -> int:
    step: int = load_torch(folder / "resume.pt")["step"]
    return step


RANK = """
import sys
from pathlib import Path
import torch
from torch import nn
from vos_shared.cli import run_cli
from vos_shared.checkpoints import safetensors_io
from vos_shared.errors import BadVideo
from vos_shared.runtime.distributed import fabric, rank, world_size
from vos_shared.training.arguments import RunOptions
from vos_shared.training.run import TrainingRun

folder, failure = Path(sys.argv[1]), sys.argv[2]

class Samples(torch.utils.data.Dataset):
    def __getitem__(self, key):
        if failure == "sample" and key == (2, 3):
            raise BadVideo("frame 2 is broken")
        return torch.tensor([float(key[0]), float(key[1])])

def main():
    lightning = fabric("cpu", devices=world_size())
    lightning.launch()
    torch.manual_seed(0)
    network = nn.Linear(2, 1)
    model, optimiser = lightning.setup(network, torch.optim.SGD(network.parameters(), lr=0.01))
    write = lambda path: safetensors_io.save(path, network.state_dict(), {})
    options = RunOptions(folder, resume=failure == "resume")
    with TrainingRun(options, lightning, network, optimiser, steps=4, write_weights=write, log_steps=4) as run:
        for batch in run.batches(Samples(), 4 // world_size()):
            if failure == "memory" and rank() == 1 and run.step == 2:
                raise MemoryError
            loss = model(batch).square().mean()
            optimiser.zero_grad()
            lightning.backward(loss)
            optimiser.step()
            run.finished({"loss": loss})

sys.exit(run_cli(main, prog=f"rank{rank()}"))
"""


def run_ranks(folder: Path, failure: str, count: int) -> list[tuple[int, str]]:
    """Exit code and standard error of each process."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(server.getsockname()[1]), "WORLD_SIZE": str(count)}
    common = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"} | (group if count > 1 else {})
    environments = [
        {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} if count > 1 else common for rank in range(count)
    ]
    command = [sys.executable, "-c", RANK, str(folder), failure]
    running = [
        subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for environment in environments
    ]
    return [(process.wait(timeout=120), process.communicate()[1]) for process in running]


def test_a_port_that_is_taken_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(server.getsockname()[1]), "WORLD_SIZE": "2"}
        environment = {**os.environ, **where, "RANK": "0", "LOCAL_RANK": "0", "TORCH_CPP_LOG_LEVEL": "FATAL"}
        code = (
            "import sys\nfrom pathlib import Path\nfrom vos_shared.cli import run_cli\n"
            "from vos_shared.training.arguments import RunArguments\n"
            f"arguments = RunArguments(output=Path({str(tmp_path)!r}), device='cpu', devices=2)\n"
            "sys.exit(run_cli(arguments.launch, prog='x'))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, timeout=120
        )
    said = [line for line in done.stderr.splitlines() if line.startswith("x: ")]
    assert done.returncode == 2, done.stderr
    assert len(said) == 1
    assert f"127.0.0.1:{where['MASTER_PORT']}" in said[0]
    assert "Traceback" not in done.stderr


def test_processes_of_devices_take_different_shares(tmp_path: Path) -> None:
    """Also under Fabric's own launcher, which starts the script once more."""
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\n"
        "from vos_shared.runtime.distributed import shard\n"
        "from vos_shared.training.arguments import RunArguments\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "fabric = RunArguments(output=folder, device='cpu', devices=2).launch()\n"
        "(folder / f'share-{fabric.global_rank}').write_text(''.join(shard(list('abcd'))))\n"
        "fabric.barrier()\n"
    )
    subprocess.run([sys.executable, script], check=True, capture_output=True, timeout=120)
    shares = [(tmp_path / f"share-{rank}").read_text() for rank in (0, 1)]
    assert all(shares)
    assert sorted("".join(shares)) == list("abcd")


def test_two_processes_compute_what_one_does_with_both_batches(tmp_path: Path) -> None:
    assert [code for code, _ in run_ranks(tmp_path / "one", "none", 1)] == [0]
    assert [code for code, _ in run_ranks(tmp_path / "two", "none", 2)] == [0, 0]
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-6, rtol=1e-5)
    assert logged(tmp_path / "two") == [pytest.approx(line, rel=1e-5) for line in logged(tmp_path / "one")]


def test_two_processes_log_after_a_resume_what_an_uninterrupted_run_logs(tmp_path: Path) -> None:
    """Losses that were summed before the stop are those of all processes, not only of the first."""
    run_ranks(tmp_path / "whole", "none", 2)
    assert [code for code, _ in run_ranks(tmp_path / "parts", "sample", 2)] == [2, 2]
    assert step_of(tmp_path / "parts") == 2
    assert [code for code, _ in run_ranks(tmp_path / "parts", "resume", 2)] == [0, 0]
    assert logged(tmp_path / "parts") == logged(tmp_path / "whole")


def test_a_bad_sample_in_one_process_ends_both_after_saving(tmp_path: Path) -> None:
    first, second = run_ranks(tmp_path, "sample", 2)
    assert (first[0], second[0]) == (2, 2)
    assert "another process failed" in first[1]
    assert "frame 2 is broken" in second[1]
    assert step_of(tmp_path) == 2


def test_want_of_memory_in_one_process_leaves_nobody_waiting(tmp_path: Path) -> None:
    first, second = run_ranks(tmp_path, "memory", 2)
    assert (first[0], second[0]) == (2, 2)
    assert "not enough memory" in second[1]
    assert "another process failed" in first[1]
    assert "Traceback" not in first[1] + second[1]
