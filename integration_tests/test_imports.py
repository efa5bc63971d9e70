"""Each package imports with only its declared dependencies; tox runs this in every package's own environment."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from vos_shared.method import ENTRY_POINT_GROUP, discover

PACKAGES = ("vos_shared", "unsup_fg", "dense_ulearn", "amd_objectness", "spn_instances", "osmn")
INSTALLED = [name for name in PACKAGES if find_spec(name)]

EXTRAS = {"hypothesis", "jinja2", "lightning_fabric", "pycocotools", "pydensecrf", "pytest"}
EXTRAS |= {"tensorboard", "tensorflow", "triton"}


def modules(package: str) -> Iterator[str]:
    yield package
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
        yield module.name


def missing_modules(package: str) -> set[str]:
    """Top-level names that the package's modules import and that are not installed."""
    missing = set()
    for name in modules(package):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            missing.add((error.name or name).partition(".")[0])
    return missing


@pytest.mark.parametrize("package", INSTALLED)
def test_every_module_imports(package: str) -> None:
    assert missing_modules(package) <= EXTRAS


def test_discovery_does_not_import_torch() -> None:
    code = "import sys; from vos_shared.method import discover; discover(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("package", INSTALLED)
def test_command_lines_do_not_import_torch(package: str) -> None:
    code = f"import sys, {package}.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_registered_method_loads() -> None:
    _, broken = discover()
    assert not broken, f"entry points of the group {ENTRY_POINT_GROUP} that cannot be used: {broken}"
