"""Where a comparison ran."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

DISTRIBUTIONS = ("vos-shared", "torch", "torchvision", "numpy", "scipy", "pillow", "av")


def describe_environment(methods: Mapping[str, str]) -> dict[str, str]:
    """Versions, machine and command line, by name.

    Args:
        methods: distribution and version of each method that ran.
    """
    import torch  # Here, not above: `--help` must not wait for it.

    environment = {
        "Date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "Command": shlex.join(["python", *sys.argv]),
        "System": platform.platform(),
        "Processor": _processor(),
        "Cores": f"{_usable_cores()} usable",
        "PyTorch threads": str(torch.get_num_threads()),
    }
    if torch.cuda.is_available():
        environment["GPU"] = f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
    environment["Python"] = platform.python_version()
    return environment | _versions() | dict(methods)


def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in DISTRIBUTIONS}


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    """The model's name, which `platform.processor` does not tell on Linux."""
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
