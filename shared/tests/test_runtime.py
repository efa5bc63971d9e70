import ctypes
import mmap
import os
import platform
import random
import subprocess
import sys
import threading
import time
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from vos_shared.errors import MissingExtra, UserError
from vos_shared.runtime.background import BackgroundThread
from vos_shared.runtime.device import autocast, choose_device, choose_precision, describe_device
from vos_shared.runtime.distributed import PATIENCE, fabric, shard
from vos_shared.runtime.memory import freed_memory_kept, peak_memory_bytes, reset_peak
from vos_shared.runtime.seeding import seed_everything
from vos_shared.runtime.timing import Stopwatch

CPU = torch.device("cpu")


def test_auto_is_the_best_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert choose_device("auto") == torch.device("cuda:0")
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert choose_device("auto") == torch.device("cuda:3")
    assert choose_device("cuda") == torch.device("cuda:3")
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(UserError, match="this machine has 4"):
        choose_device("cuda:4")


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps", "gpu", "meta", ""])
def test_devices_that_are_not_there(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError, match="choose"):
        choose_device(name)
    assert choose_device("auto") == CPU


def test_precisions() -> None:
    assert [choose_precision(name, CPU) for name in ("fp32", "bf16", "fp16")] == [
        torch.float32,
        torch.bfloat16,
        torch.float16,
    ]
    with pytest.raises(UserError, match="fp32, bf16, fp16"):
        choose_precision("half", CPU)


def test_autocast_changes_matrix_products_only_when_asked() -> None:
    matrix = torch.ones(2, 2)
    with autocast(CPU, torch.bfloat16):
        assert (matrix @ matrix).dtype == torch.bfloat16
    with autocast(CPU, torch.float32):
        assert (matrix @ matrix).dtype == torch.float32


@pytest.mark.parametrize(("threads", "text"), [(1, "cpu (1 thread)"), (3, "cpu (3 threads)")])
def test_describe_device_names_the_threads(threads: int, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert describe_device(CPU) == text


def test_seeds_reach_every_generator() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002 - the one that is seeded

    seed_everything(5)
    first = draw()
    seed_everything(5)
    assert draw() == first
    seed_everything(6)
    assert draw() != first


def test_a_stopwatch_adds_up_its_blocks() -> None:
    watch = Stopwatch(CPU)
    for _ in range(2):
        with watch:
            time.sleep(0.02)
    time.sleep(0.05)
    assert len(watch.laps) == 2
    assert all(lap >= 0.02 for lap in watch.laps)
    assert watch.seconds == sum(watch.laps)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_stopwatch_waits_for_the_device() -> None:
    matrix = torch.rand(4096, 4096, device="cuda")
    torch.mm(matrix, matrix)
    torch.cuda.synchronize()
    queued, done = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    with Stopwatch("cuda") as watch:
        queued.record()
        for _ in range(50):
            torch.mm(matrix, matrix)
        done.record()
    assert 1000 * watch.seconds >= 0.9 * queued.elapsed_time(done)


def test_peak_memory_sees_an_allocation_that_is_gone() -> None:
    reset_peak()
    before = peak_memory_bytes()
    with mmap.mmap(-1, 200 << 20) as block:  # The C library may keep memory that an array frees.
        for _ in range(200):
            block.write(bytes(1 << 20))
    assert peak_memory_bytes() - before > 150 << 20
    reset_peak()
    assert peak_memory_bytes() - before < 100 << 20


ARRAYS = """
import resource, torch
from pathlib import Path
from vos_shared.runtime.memory import freed_memory_kept

page = resource.getpagesize() / 2**20
resident = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * page
torch.ones(10)
start = resident()
for _ in range(2):
    with freed_memory_kept(torch.device("cpu")):
        for size in (120, 100, 110, 100):  # Not always the first, as malloc may put the second elsewhere.
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            torch.ones(size << 18)
        print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * page, resident() - start)
    print(resident() - start)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told what to keep")
def test_freed_memory_is_kept_for_further_arrays_and_then_given_back() -> None:
    """In a process of its own: what other tests have left behind would be used first."""
    found = subprocess.run([sys.executable, "-c", ARRAYS], check=True, capture_output=True, text=True).stdout
    for inside, after in zip(*2 * [iter(found.splitlines())], strict=True):
        fresh, kept = map(float, inside.split())
        assert fresh < 10
        assert kept > 100
        assert float(after) < 50


def test_only_the_memory_of_a_processor_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Mock()
    monkeypatch.setattr(ctypes, "CDLL", Mock(return_value=library))
    monkeypatch.setattr(sys, "platform", "linux")
    with freed_memory_kept(torch.device("cuda")):
        assert not library.mallopt.called
    with freed_memory_kept(torch.device("cpu")):
        assert library.mallopt.called


def test_a_peak_is_reset_before_anything_is_on_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA refuses to reset the peak before its first use."""
    calls: list[str] = []
    monkeypatch.setattr(torch.cuda, "init", lambda: calls.append("init"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: calls.append(f"reset {device}"))
    reset_peak("cuda:1")
    assert calls == ["init", "reset cuda:1"]


def test_shares_are_everything_without_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    items = list(range(10))
    assert shard(items) == items
    monkeypatch.setenv("WORLD_SIZE", "3")
    shares = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        shares.append(shard(items))
    assert sorted(item for share in shares for item in share) == items
    assert {len(share) for share in shares} == {3, 4}
    monkeypatch.setenv("RANK", "first")
    with pytest.raises(UserError, match="RANK"):
        shard(items)


def test_float32_is_float32_on_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    found = []
    for name in ("cuda", "cpu"):
        with autocast(torch.device(name), torch.float32):
            found.append(torch.backends.cudnn.allow_tf32)
    assert [*found, torch.backends.cudnn.allow_tf32] == [False, True, True]


def test_fabric_takes_our_words(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lightning_fabric")
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    built = fabric("cpu", "bf16")
    built.launch()
    assert built.device == CPU
    assert built.world_size == 1
    with built.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    with pytest.raises(UserError, match="no device"):
        fabric("tpu")
    with pytest.raises(UserError, match="no precision"):
        fabric("cpu", "fp8")
    with pytest.raises(UserError, match="fp16 needs a GPU"):
        fabric("cpu", "fp16")


def test_processes_wait_for_the_one_that_works_alone() -> None:
    strategies = pytest.importorskip("lightning_fabric.strategies")
    alone, several = (fabric("cpu", devices=count).strategy for count in (1, 2))
    assert not isinstance(alone, strategies.DDPStrategy)
    assert isinstance(several, strategies.DDPStrategy)
    assert several._timeout == PATIENCE


@pytest.mark.parametrize(
    ("device", "devices", "message"),
    [
        ("cuda:x", 1, "no device is called"),
        ("cpu", 0, "0 devices of 1 machines"),
        ("cpu:0", 2, "device cpu:0 is one device, 2 are asked for"),
    ],
)
def test_devices_that_make_no_sense(device: str, devices: int, message: str) -> None:
    pytest.importorskip("lightning_fabric")
    with pytest.raises(UserError, match=message):
        fabric(device, devices=devices)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_training_without_the_device_that_was_asked_for() -> None:
    pytest.importorskip("lightning_fabric")
    with pytest.raises(UserError, match="cuda is not available here"):
        fabric("cuda")


def test_torchrun_says_how_many_processes_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lightning_fabric")
    said = {"RANK": "2", "LOCAL_RANK": "0", "GROUP_RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}
    for name, value in {**said, "TORCHELASTIC_RUN_ID": "none"}.items():
        monkeypatch.setenv(name, value)
    strategy: Any = fabric("cpu").strategy
    assert (strategy.num_processes, strategy.num_nodes) == (2, 2)


@pytest.mark.parametrize("nodes", [1, 2])
def test_torchrun_with_one_process_a_machine_keeps_its_gpu(monkeypatch: pytest.MonkeyPatch, nodes: int) -> None:
    pytest.importorskip("lightning_fabric")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    said = {"RANK": "0", "LOCAL_RANK": "0", "GROUP_RANK": "0", "WORLD_SIZE": str(nodes), "LOCAL_WORLD_SIZE": "1"}
    for name, value in {**said, "TORCHELASTIC_RUN_ID": "none"}.items():
        monkeypatch.setenv(name, value)
    assert fabric("cuda:1").device == torch.device("cuda:1")
    assert fabric("cuda").device == torch.device("cuda:0")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("WORLD_SIZE", str(2 * nodes))
    with pytest.raises(UserError, match="device cuda:1 is one device, 2 are asked for"):
        fabric("cuda:1")


def test_without_fabric_the_install_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    with pytest.raises(MissingExtra, match=r"pip install 'vos-shared\[train\]'"):
        fabric()


def test_background_calls_run_in_order_and_are_done_at_the_end() -> None:
    done: list[int] = []
    with BackgroundThread(depth=2) as background:
        for number in range(20):
            background.submit(done.append, number)
        background.submit(time.sleep, 0.05)
    assert done == list(range(20))
    assert 0.05 <= background.busy_seconds < 5


def test_background_waits_while_its_queue_is_full() -> None:
    gate = threading.Event()
    submitted: list[int] = []

    def submit_all(background: BackgroundThread) -> None:
        for number in range(6):
            background.submit(gate.wait)
            submitted.append(number)

    with BackgroundThread(depth=3) as background:
        thread = threading.Thread(target=submit_all, args=(background,))
        thread.start()
        thread.join(0.3)
        assert len(submitted) == 3
        gate.set()
        thread.join()
    assert len(submitted) == 6


def test_a_background_failure_is_raised_in_the_foreground() -> None:
    with pytest.raises(ZeroDivisionError), BackgroundThread() as background:
        background.submit(lambda: 1 / 0)


def test_the_blocks_own_failure_comes_first() -> None:
    def fail_twice(background: BackgroundThread) -> None:
        background.submit(lambda: 1 / 0)
        raise KeyError

    with pytest.raises(KeyError), BackgroundThread() as background:
        fail_twice(background)


def test_shares_need_no_torch() -> None:
    code = "import sys, vos_shared.runtime.distributed; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=dict(os.environ), check=False).returncode == 0
