"""Where a comparison ran."""

from __future__ import annotations

import importlib.metadata
import platform
import shlex
import sys
from collections.abc import Mapping
from datetime import UTC, datetime

DISTRIBUTIONS = ("vos-shared", "torch", "torchvision", "numpy", "scipy", "pillow", "av")


def describe_environment(device: str, methods: Mapping[str, str]) -> dict[str, str]:
    """Versions, machine and command line, by name.

    Args:
        device: as given on the command line.
        methods: distribution and version of each method that ran.
    """
    import torch  # Not at the top: importing it takes seconds.

    from vos_shared.runtime.cores import processor_name, usable_cores
    from vos_shared.runtime.device import choose_device, describe_device

    environment = {
        "Date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "Command": shlex.join(["python", *sys.argv]),
        "System": platform.platform(),
        "Processor": processor_name(),
        "Device": describe_device(choose_device(device)),
        "Cores": f"{usable_cores()} usable",
        "Python": platform.python_version(),
    }
    if torch.cuda.is_available():
        environment["CUDA"] = str(torch.version.cuda)
    return environment | _versions() | dict(methods)


def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in DISTRIBUTIONS}
