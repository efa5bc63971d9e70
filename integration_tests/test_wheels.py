"""Release wheels: they need no folder of the machine that built them, and work in an environment of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path

import pytest

pytest.importorskip("build", reason="wheels are tested by `tox run -e build`")
uv = pytest.importorskip("uv", reason="wheels are tested by `tox run -e build`")

ROOT = Path(__file__).resolve().parent.parent
METHODS = ("amd-objectness", "dense-ulearn", "osmn", "spn-instances", "unsup-fg")
PACKAGES = ("vos-shared", *METHODS)
GIT_FILES = ("git", "ls-files", "--cached", "--others", "--exclude-standard", ".")


def folder(package: str) -> Path:
    return ROOT / ("shared" if package == "vos-shared" else f"packages/{package}")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every package's wheel by the package's name: those in VOS_WHEELS, or new ones."""
    output = Path(os.environ.get("VOS_WHEELS") or tmp_path_factory.mktemp("wheels"))
    if "VOS_WHEELS" not in os.environ:
        subprocess.run([sys.executable, ROOT / "tools" / "build_wheels.py", "--output", output], check=True)
    return {name: next(output.glob(f"{name.replace('-', '_')}-*.whl")) for name in PACKAGES}


@pytest.fixture(params=PACKAGES)
def wheel(request: pytest.FixtureRequest, wheels: dict[str, Path]) -> Iterator[zipfile.ZipFile]:
    with zipfile.ZipFile(wheels[request.param]) as archive:
        yield archive


def metadata(wheel: zipfile.ZipFile) -> Message:
    name = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return HeaderParser().parsestr(wheel.read(name).decode())


def test_requirements_name_versions_not_folders(wheel: zipfile.ZipFile) -> None:
    requirements = metadata(wheel).get_all("Requires-Dist", [])
    assert not [requirement for requirement in requirements if "@" in requirement]
    if metadata(wheel)["Name"] in METHODS:
        assert "vos-shared (>=0.1,<0.2)" in requirements


def test_types_and_licence_are_shipped(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    assert any(name.endswith("/py.typed") for name in names)
    assert any(name.endswith("/LICENSE") for name in names)


def test_wheel_holds_what_git_holds_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    source = folder(metadata(wheel)["Name"]) / "src"
    listed = subprocess.run(GIT_FILES, cwd=source, capture_output=True, text=True, check=True).stdout
    shipped = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert shipped == set(listed.splitlines())


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory, wheels: dict[str, Path]) -> Path:
    """An environment with the five methods, which takes vos-shared from the folder of wheels."""
    path = tmp_path_factory.mktemp("environment") / "venv"
    run_uv("venv", "--python", sys.executable, path)
    methods = [f"{name} @ {wheels[name].as_uri()}" for name in METHODS]
    links = wheels["vos-shared"].parent
    run_uv("pip", "install", "--python", path, "--find-links", links, "--refresh-package", "vos-shared", *methods)
    return path / "bin"


def run_uv(*arguments: str | Path) -> None:
    done = subprocess.run([uv.find_uv_bin(), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_released_wheels_install_from_a_folder(environment: Path) -> None:
    imports = "; ".join(f"import {name.replace('-', '_')}" for name in PACKAGES)
    subprocess.run([environment / "python", "-c", imports], check=True, cwd=environment)
    shown = subprocess.run([environment / "vos", "--help"], capture_output=True, text=True, check=True, cwd=environment)
    assert "evaluate" in shown.stdout


def test_released_methods_are_found(environment: Path) -> None:
    code = "from vos_shared.method import discover; found, broken = discover(); print(*found); print(broken)"
    shown = subprocess.run([environment / "python", "-c", code], capture_output=True, text=True, check=True)
    registered = [tomllib.loads((folder(name) / "pyproject.toml").read_text())["project"] for name in METHODS]
    names = {name for project in registered for name in project.get("entry-points", {}).get("vos.methods", {})}
    assert shown.stdout.splitlines() == [" ".join(sorted(names)), "{}"]
