"""Build the release wheels of every package.

In a checkout a method takes vos-shared from the folder beside it, which would end up in its wheel as
`vos-shared @ file:///..`. So each package is built from a copy in which that line is a version requirement.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import tomllib
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import tyro
from build import ProjectBuilder

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = (ROOT / "shared", *sorted(path.parent for path in (ROOT / "packages").glob("*/pyproject.toml")))
PATH_DEPENDENCY = re.compile(r"^vos-shared = \{ path = .*\}$", re.MULTILINE)


def compatible_range(version: str) -> str:
    """The versions that a wheel of this version accepts: all patches of the same minor release."""
    major, minor = (int(part) for part in version.split(".")[:2])
    return f">={major}.{minor},<{major}.{minor + 1}"


def release_form(pyproject: str, shared_version: str) -> str:
    """Rewrite a package's pyproject.toml for its wheel: vos-shared by version instead of by path."""
    return PATH_DEPENDENCY.sub(f'vos-shared = "{compatible_range(shared_version)}"', pyproject)


def requirements(wheel: Path) -> list[str]:
    """Read what a wheel requires from its metadata."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = HeaderParser().parsestr(archive.read(name).decode())
    return metadata.get_all("Requires-Dist", [])


def build_wheel(package: Path, output: Path, shared_version: str) -> Path:
    """Build one package's wheel from a copy in release form.

    Raises:
        RuntimeError: the wheel still requires a folder of this machine.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / package.name
        shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__", "tests", "dist", "build"))
        shutil.copy(ROOT / "LICENSE", copy)
        pyproject = copy / "pyproject.toml"
        pyproject.write_text(release_form(pyproject.read_text(), shared_version))
        wheel = Path(ProjectBuilder(copy).build("wheel", output))
    if paths := [requirement for requirement in requirements(wheel) if "@ file:" in requirement]:
        wheel.unlink()
        raise RuntimeError(f"{package.name}: its wheel requires {', '.join(paths)}; see PATH_DEPENDENCY in {__file__}")
    return wheel


def main(output: Path = Path("dist")) -> None:
    """Build the release wheels of every package.

    Args:
        output: folder for the wheels; those of the same version are replaced.
    """
    output.mkdir(parents=True, exist_ok=True)
    shared_version = tomllib.loads((ROOT / "shared" / "pyproject.toml").read_text())["project"]["version"]
    for package in PACKAGES:
        print(build_wheel(package, output, shared_version))


if __name__ == "__main__":
    tyro.cli(main)
