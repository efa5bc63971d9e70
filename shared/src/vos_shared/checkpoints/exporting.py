"""Networks as files that run without this project: programs of `torch.export`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from vos_shared.atomic import atomic_path


def write_program(path: Path, module: nn.Module, example: tuple[Any, ...]) -> Path:
    """Write a module as ``.pt2``, which `torch.export.load` reads.

    Args:
        path: of the file; its folder is created if missing.
        module: in evaluation mode.
        example: its arguments; the program takes tensors of these shapes.

    Returns:
        The file.
    """
    exported = torch.export.export(module, example)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        torch.export.save(exported, file)
    return path
