"""Export of networks with `torch.export`, to run without this project."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from vos_shared.atomic import atomic_path


def write_program(path: Path, module: nn.Module, example: tuple[Any, ...]) -> Path:
    """Write a module as a ``.pt2`` file, which `torch.export.load` reads; creates missing folders.

    Args:
        path: path of the file.
        module: module in evaluation mode.
        example: arguments of the module; the exported program takes tensors of the same shapes.

    Returns:
        `path`.
    """
    exported = torch.export.export(module, example)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        torch.export.save(exported, file)
    return path
