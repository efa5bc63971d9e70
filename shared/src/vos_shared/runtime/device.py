"""Choice of device and precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Final

import torch

from vos_shared.errors import UserError
from vos_shared.runtime.distributed import local_rank

PRECISIONS: Final = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str = "auto") -> torch.device:
    """The device of this name.

    Args:
        name: ``auto`` (the best there is), ``cpu``, ``cuda``, ``cuda:1`` or ``mps``. Under torchrun ``auto`` and
            ``cuda`` are the GPU of this process.

    Raises:
        UserError: no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"no device is called {name!r}; choose auto, cpu, cuda, cuda:1 or mps") from None
    if device.type == "cuda":
        return _cuda(device)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("device mps is not available here; choose cpu or auto")
    if device.type not in {"cpu", "mps"}:
        raise UserError(f"device {name} is not supported; choose auto, cpu, cuda, cuda:1 or mps")
    return device


def _cuda(device: torch.device) -> torch.device:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    index = local_rank() if device.index is None else device.index
    if count == 0:
        raise UserError("device cuda is not available here (no NVIDIA GPU, or no driver for it); choose cpu or auto")
    if index >= count:
        raise UserError(f"device cuda:{index} does not exist; this machine has {count}, the first is cuda:0")
    return torch.device("cuda", index)


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """The floating point type of this name: ``fp32``, ``bf16`` or ``fp16``.

    Raises:
        UserError: unknown, or the device cannot compute in it.
    """
    if name not in PRECISIONS:
        raise UserError(f"no precision is called {name!r}; choose {', '.join(PRECISIONS)}")
    if name == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise UserError(f"{torch.cuda.get_device_name(device)} cannot compute in bf16; choose fp16 or fp32")
    return PRECISIONS[name]


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Context in which matrix products and convolutions run in `dtype`; for float32, TF32 is off."""
    if dtype != torch.float32:
        return torch.autocast(device.type, dtype)
    return _without_tf32() if device.type == "cuda" else nullcontext()


@contextmanager
def _without_tf32() -> Iterator[None]:
    """By default cuDNN rounds the inputs of a convolution to 10 bits, which changes the fourth digit of features."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def describe_device(device: torch.device) -> str:
    """Name of the device for reports: ``NVIDIA H200``, ``cpu (2 threads)``."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"cpu ({threads} {'thread' if threads == 1 else 'threads'})" if device.type == "cpu" else str(device)
