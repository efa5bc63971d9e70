"""Hashes of weights and of a method's package, for records of results."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from vos_shared.checkpoints.published import file_sha256
from vos_shared.method import Method


def weights_digest(weights: str | None) -> str | list[str] | None:
    """Hash of the weights that a user names.

    Args:
        weights: a file, a folder, the prefix of a TensorFlow checkpoint, a name in the method's table, or None.

    Returns:
        SHA-256 of the file, or of each file of the folder or checkpoint; a name or None is returned as it is.
    """
    path = Path(weights or "")
    if weights and path.is_file():
        return file_sha256(path)
    if weights and path.is_dir():
        return [file_sha256(part) for part in sorted(path.rglob("*")) if part.is_file()]
    if path.name and path.with_name(f"{path.name}.index").is_file():
        return [file_sha256(part) for part in sorted(path.parent.glob(f"{path.name}.*"))]
    return weights


def package_digest(method: Method) -> str:
    """Hash of all files of a method's package and of vos-shared, on which the masks depend."""
    digest = hashlib.sha256()
    for module in (method.loader.partition(":")[0].partition(".")[0], "vos_shared"):
        for path in _package_files(module):
            digest.update(path.name.encode())
            digest.update(bytes.fromhex(file_sha256(path)))
    return digest.hexdigest()


def _package_files(module: str) -> Iterator[Path]:
    spec = find_spec(module)
    if spec is None:
        return
    if spec.submodule_search_locations is None:
        yield Path(spec.origin or "")
    for folder in spec.submodule_search_locations or ():
        files = (path for path in Path(folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        yield from sorted(files)
