"""The packages agree with each other and with the workspace's configuration."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sysconfig
import tomllib
from importlib.metadata import distribution, version
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = [ROOT / "shared", *sorted(path.parent for path in (ROOT / "packages").glob("*/pyproject.toml"))]


def read(pyproject: Path) -> dict[str, Any]:
    return tomllib.loads(pyproject.read_text())


@pytest.fixture(params=FOLDERS, ids=lambda folder: folder.name)
def project(request: pytest.FixtureRequest) -> dict[str, Any]:
    settings: dict[str, Any] = read(request.param / "pyproject.toml")["project"]
    return settings


def test_all_versions_agree(project: dict[str, Any]) -> None:
    workspace = read(ROOT / "pyproject.toml")["project"]["version"]
    module = importlib.import_module(import_name(project))
    assert project["version"] == version(project["name"]) == module.__version__ == workspace


def import_name(project: dict[str, Any]) -> str:
    name: str = project["name"]
    return name.replace("-", "_")


def test_changelog_knows_the_version() -> None:
    workspace = read(ROOT / "pyproject.toml")["project"]["version"]
    headings = [line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("## [")]
    assert headings[0].startswith("## [Unreleased]") or headings[0].startswith(f"## [{workspace}]")


def test_console_scripts_exist_and_say_what_they_do(project: dict[str, Any]) -> None:
    scripts = {entry.name for entry in distribution(project["name"]).entry_points if entry.group == "console_scripts"}
    assert scripts == set(project.get("scripts", {}))
    for script in scripts:
        path = shutil.which(script, path=sysconfig.get_path("scripts"))
        assert path is not None, f"{script} is not installed"
        shown = subprocess.run([path, "--help"], capture_output=True, text=True, check=False)
        assert shown.returncode == 0, shown.stderr
        assert script in shown.stdout


def test_workspace_holds_every_package(project: dict[str, Any]) -> None:
    workspace = read(ROOT / "pyproject.toml")
    poetry = workspace["tool"]["poetry"]["dependencies"]
    assert project["name"] in poetry
    assert (ROOT / poetry[project["name"]]["path"] / "pyproject.toml").is_file()
    assert import_name(project) in workspace["tool"]["importlinter"]["root_packages"]


def test_workspace_is_described(project: dict[str, Any]) -> None:
    assert project["name"] in (ROOT / "README.md").read_text()
