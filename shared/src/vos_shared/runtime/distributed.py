"""Several processes: sharding under torchrun, and Lightning Fabric for training."""

from __future__ import annotations

import atexit
import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from vos_shared.errors import MissingExtra, UserError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

T = TypeVar("T")

PATIENCE: Final = timedelta(days=1)
"""Time that processes wait for each other; decoding videos or validating may exceed torch's half hour."""

_FABRIC_PRECISION: Final = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def rank() -> int:
    """Rank of this process under torchrun; 0 without torchrun."""
    return _environment("RANK", 0)


def world_size() -> int:
    """Number of processes under torchrun, on all machines; 1 without torchrun."""
    return _environment("WORLD_SIZE", 1)


def local_rank() -> int:
    """Rank of this process on its machine, which is the index of its GPU."""
    return _environment("LOCAL_RANK", 0)


def shard(items: Sequence[T]) -> list[T]:
    """The share of this process: every `world_size`-th item from `rank` on."""
    return list(items[rank() :: world_size()])


def own_file(path: Path) -> Path:
    """The path for this process: under torchrun its rank is appended to the name."""
    return path.with_name(f"{path.stem}-rank{rank()}{path.suffix}") if world_size() > 1 else path


def fabric(device: str = "auto", precision: str = "fp32", *, devices: int = 1, nodes: int = 1) -> Fabric:
    """Make a Lightning Fabric; the caller calls ``launch()``. Several processes train with DDP.

    Args:
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        precision: ``fp32``, ``bf16`` or ``fp16``; the weights stay in fp32.
        devices: devices on each machine; 1 if the device has an index. Under torchrun its number is used.
        nodes: number of machines. Under torchrun its number is used.

    Raises:
        MissingExtra: Lightning Fabric is not installed.
        UserError: unknown device or precision, or more devices than there are.
    """
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.strategies.ddp import DDPStrategy
    except ImportError as error:
        raise MissingExtra("training needs Lightning Fabric: pip install 'vos-shared[train]'") from error
    from vos_shared.runtime.device import choose_device, choose_precision  # That module needs this one.

    place = choose_device(device)
    choose_precision(precision, place)
    if precision == "fp16" and place.type == "cpu":
        raise UserError("training in fp16 needs a GPU; choose bf16 or fp32")
    accelerator, _, index = device.partition(":")
    rank()  # Raises if torchrun's variable is not a number.
    local = _environment("LOCAL_WORLD_SIZE", 0)
    if local:
        devices, nodes = local, world_size() // local
    _check_count(device, place.type, devices, nodes)
    several = devices * nodes > 1
    if several:
        atexit.register(_leave_group)
    return Fabric(
        accelerator=accelerator,
        precision=_FABRIC_PRECISION[precision],  # type: ignore[arg-type]
        devices=[int(index)] if index and place.type == "cuda" else devices,
        num_nodes=nodes,
        strategy=DDPStrategy(timeout=PATIENCE) if several else "auto",
    )


def _leave_group() -> None:
    """Destroy the process group. Fabric does so for NCCL only; Gloo's threads could abort the process at exit."""
    import torch
    from torch import distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        return
    # A thread of Gloo may wait for the GIL to release a tensor. Destroying the group would hold the GIL and wait for
    # that thread: a deadlock. Destroying the back end releases the GIL, so the reference here must be dropped last.
    group = distributed.group.WORLD
    backend = group._get_backend(torch.device("cpu")) if group and distributed.get_backend() == "gloo" else None
    distributed.destroy_process_group()
    del group, backend


def _check_count(device: str, kind: str, devices: int, nodes: int) -> None:
    if devices < 1 or nodes < 1:
        raise UserError(f"training cannot run on {devices} devices of {nodes} machines; give one at least")
    if ":" in device and devices > 1:
        raise UserError(f"device {device} is one device, {devices} are asked for; give {kind}, or one device")
    import torch

    if kind == "cuda" and devices > torch.cuda.device_count():
        raise UserError(f"{devices} CUDA devices are asked for, this machine has {torch.cuda.device_count()}")


def _environment(variable: str, default: int) -> int:
    text = os.environ.get(variable, "")
    try:
        return int(text) if text else default
    except ValueError:
        raise UserError(f"environment variable {variable} is {text!r}; torchrun sets it to a number") from None
