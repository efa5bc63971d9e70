"""TensorFlow checkpoints, read and written by TensorFlow itself (extra ``tensorflow``)."""

from __future__ import annotations

import errno
import glob
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from vos_shared.checkpoints.checking import require_finite
from vos_shared.errors import BadWeights, MissingExtra
from vos_shared.files import open_file

_SUFFIXES = (".index", ".meta", ".data-00000-of-00001")


def read_checkpoint(path: str | Path) -> dict[str, npt.NDArray[Any]]:
    """Read every variable of a checkpoint.

    Args:
        path: prefix of a V2 checkpoint, any of its files, or a V1 checkpoint of one file.

    Returns:
        Variables by name, in TensorFlow's layout (kernels HWIO).

    Raises:
        BadWeights: the checkpoint is missing, damaged or incomplete, or contains NaN or infinity.
        MissingExtra: TensorFlow is not installed.
        OSError: a file of it is a pipe.
    """
    prefix = _prefix(Path(path))
    for file in prefix.parent.glob(f"{glob.escape(prefix.name)}.data-*"):
        open_file(file).close()
    tensorflow = _tensorflow()
    try:
        reader = tensorflow.train.load_checkpoint(str(prefix))
        names = sorted(reader.get_variable_to_shape_map())
        arrays = {name: np.asarray(reader.get_tensor(name)) for name in names}
    except (tensorflow.errors.OpError, ValueError, RuntimeError, LookupError) as error:
        reason = str(error).splitlines()[0]
        raise BadWeights(
            f"{prefix}: TensorFlow cannot read this checkpoint ({reason}); is a file of it missing, or cut short?"
        ) from error
    require_finite(arrays, prefix)
    return arrays


def write_checkpoint(path: str | Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write a V2 checkpoint (`path` is its prefix of ``.index`` and ``.data-00000-of-00001``).

    Raises:
        MissingExtra: TensorFlow is not installed.
        OSError: it cannot be written, for example to a full disk; an earlier checkpoint of this name is kept.
    """
    tensorflow = _tensorflow()
    prefix = Path(path)
    prefix.parent.mkdir(parents=True, exist_ok=True)
    staging = prefix.with_name(f".{prefix.name}.{secrets.token_hex(4)}.partial")
    names = sorted(arrays)
    try:
        with tensorflow.device("cpu:0"):
            tensors = [tensorflow.constant(arrays[name]) for name in names]
            tensorflow.raw_ops.SaveV2(
                prefix=str(staging), tensor_names=names, shape_and_slices=[""] * len(names), tensors=tensors
            )
        # The old index is removed first and the new one moved last: without an index TensorFlow sees no checkpoint.
        prefix.with_name(f"{prefix.name}.index").unlink(missing_ok=True)
        for suffix in (".data-00000-of-00001", ".index"):
            staging.with_name(staging.name + suffix).replace(prefix.with_name(prefix.name + suffix))
    except tensorflow.errors.OpError as error:  # The message ends in "; " and the system's own words.
        reason = error.message.splitlines()[0].rpartition("; ")[2].partition(" [Op:")[0]
        raise OSError(errno.EIO, reason, str(prefix)) from error
    finally:
        for file in staging.parent.glob(f"{glob.escape(staging.name)}*"):
            file.unlink(missing_ok=True)


def _prefix(path: Path) -> Path:
    if not path.name:
        raise BadWeights(f"{path}: that is a folder, not the prefix of a TensorFlow checkpoint")
    for suffix in _SUFFIXES:
        if path.name.endswith(suffix):
            path = path.with_name(path.name.removesuffix(suffix))
    if not path.is_file() and not path.with_name(path.name + ".index").is_file():
        raise BadWeights(f"{path}: no TensorFlow checkpoint there (neither this file nor {path.name}.index)")
    return path


def _tensorflow() -> ModuleType:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # Hides its start-up messages.
    with suppress(ImportError):
        # Triton and TensorFlow both contain LLVM. If TensorFlow comes first, the process aborts as soon as PyTorch
        # imports triton.
        import_module("triton")
    try:
        import tensorflow
    except ImportError as error:
        raise MissingExtra(
            "TensorFlow is needed to read its checkpoints: pip install 'vos-shared[tensorflow]'"
        ) from error
    module: ModuleType = tensorflow
    return module
