"""Tables of published weights: address, licence, scores, hash; download with a check of the hash."""

from __future__ import annotations

import hashlib
import os
import sys
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import urlparse

from tqdm import tqdm

from vos_shared.atomic import atomic_path
from vos_shared.errors import BadWeights
from vos_shared.files import open_file

_CHUNK: Final = 1 << 20
_TIMEOUT: Final = 30  # seconds


@dataclass(frozen=True, kw_only=True)
class PublishedWeights:
    """An entry of a method's table of weights.

    Attributes:
        name: name of the weights on command lines.
        url: address of the file; empty if only a page with a link to it is known (`source`).
        file: file name in the cache; by default the last part of `url`, else `name`. For a TensorFlow checkpoint, the
            beginning of its prefix.
        bytes: size of the file, if known.
        sha256: hash of the file, if known.
        md5: hash of the file, if only the MD5 is published.
        md5_ends: first and last digits of the MD5, if no more is published.
        licence: short name of the licence.
        source: who trained the weights, with the page.
        scores: published scores by name, such as ``{"DAVIS-2017 val J&F": 69.3}``.
        note: further information for users.
    """

    name: str
    url: str
    licence: str
    source: str
    file: str = ""
    bytes: int | None = None
    sha256: str | None = None
    md5: str | None = None
    md5_ends: tuple[str, str] | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    note: str = ""

    @property
    def file_name(self) -> str:
        """Name of the file in the cache."""
        return self.file or PurePosixPath(urlparse(self.url).path).name or self.name


def cache_folder() -> Path:
    """Folder of downloads, as for torch hub: ``~/.cache/torch/hub/checkpoints`` unless ``TORCH_HOME`` is set."""
    # As torch.hub.get_dir, without importing torch.
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("TORCH_HOME") or str(Path(cache, "torch"))
    return Path(os.path.expandvars(home)).expanduser() / "hub" / "checkpoints"


@dataclass(frozen=True)
class WeightsTable:
    """The weights that a method knows by name.

    Attributes:
        published: weights of the paper's authors, by name.
        shipped: weights file that comes with the package and is used by default; None if there is none.
        shipped_note: description of `shipped`.
        made: descriptions, by name, of weights that are computed and not stored (``untrained``).
        more: descriptions of further weights files that come with the package, by path.
    """

    published: Mapping[str, PublishedWeights]
    shipped: Path | None
    shipped_note: str = "comes with the package; the default"
    made: Mapping[str, str] = field(default_factory=dict)
    more: Mapping[Path, str] = field(default_factory=dict)

    @property
    def _files(self) -> dict[str, tuple[Path, str]]:
        """Path and description of the files that come with the package, by name."""
        first = {} if self.shipped is None else {self.shipped: self.shipped_note}
        return {path.stem: (path, note) for path, note in (first | dict(self.more)).items()}

    def locate(self, weights: str | Path | None) -> Path:
        """Find the file of some weights.

        Args:
            weights: a file, the prefix of a TensorFlow checkpoint, the name of published weights (downloaded once), or
                None for the shipped weights.

        Raises:
            BadWeights: none of these; the download fails or has the wrong hash.
        """
        if self.shipped is not None and weights is None:
            return self.shipped
        names = ", ".join(row[0] for row in self.rows())
        if weights is None:
            raise BadWeights(f"no weights come with this method; give a file or a name: {names}")
        path = Path(weights)
        if path.is_file() or (path.name and path.with_name(f"{path.name}.index").is_file()):
            return path
        if str(weights) in self._files:
            return self._files[str(weights)][0]
        if entry := self.published.get(str(weights)):
            return fetch(entry)
        raise BadWeights(f"no weights file {weights}; known names are {names}")

    def rows(self) -> list[list[str]]:
        """Name, published scores and note of all weights, for a table."""
        shipped = [[name, "-", note] for name, (_, note) in self._files.items()]
        published = [
            [name, ", ".join(f"{score} {value:.1f}" for score, value in entry.scores.items()), entry.note]
            for name, entry in self.published.items()
        ]
        return [*shipped, *published, *([name, "-", note] for name, note in self.made.items())]

    def facts(self, name: str) -> dict[str, str]:
        """All that is known about the weights of this name: licence, address, hash, scores.

        Raises:
            BadWeights: no weights have this name.
        """
        if name in self._files:
            from vos_shared.checkpoints.safetensors_io import read_metadata

            path, note = self._files[name]
            return {"file": str(path), "note": note, **read_metadata(path)}
        if name in self.made:
            return {"note": self.made[name]}
        entry = self.published.get(name)
        if entry is None:
            raise BadWeights(f"no weights are called {name}; there are {', '.join(row[0] for row in self.rows())}")
        ends = f"{entry.md5_ends[0]}..{entry.md5_ends[1]} (no more is published)" if entry.md5_ends else ""
        facts = {
            "address": entry.url or "not published",
            "page": entry.source,
            "licence": entry.licence,
            "note": entry.note,
            "file in the cache": str(cache_folder() / entry.file_name),
            "bytes": str(entry.bytes or ""),
            "sha256": entry.sha256 or "",
            "md5": entry.md5 or ends,
            **{score: f"{value:.1f}" for score, value in entry.scores.items()},
        }
        return {what: value for what, value in facts.items() if value}


def fetch(entry: PublishedWeights) -> Path:
    """The file of an entry, downloaded if it is not in the cache; its hash is checked in both cases.

    Raises:
        BadWeights: the download fails, or the file is not the published one.
    """
    path = cache_folder() / entry.file_name
    if path.exists():
        _check(path, path, entry, "delete it, and it is downloaded again")
        return path
    if checkpoints := sorted(path.parent.glob(f"{path.name}*.index")):
        return checkpoints[0].with_suffix("")
    if not entry.url:
        raise BadWeights(
            f"weights {entry.name} are not here: download them from {entry.source} and store them as {path} (a "
            f"TensorFlow checkpoint as {path}.index and {path}.data-00000-of-00001)"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        try:
            _download(entry, temporary)
        except (OSError, HTTPException, ValueError) as reason:
            why = " ".join(str(reason).split())  # An invalid answer of a server is quoted with its line break.
            raise BadWeights(
                f"weights {entry.name} cannot be downloaded ({why}); fetch {entry.url} by other means "
                f"and store it as {path}"
            ) from reason
        _check(temporary, entry.url, entry, "the file on the web has changed or the download is incomplete")
    return path


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    return _digest(path, "sha256")


def _download(entry: PublishedWeights, path: Path) -> None:
    request = urllib.request.Request(entry.url, headers={"User-Agent": "vos-shared"})
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer, path.open("wb") as file:
        promised = int(answer.headers.get("Content-Length") or 0)
        total = promised or entry.bytes
        with tqdm(total=total, unit="B", unit_scale=True, desc=entry.file_name, file=sys.stderr, disable=None) as bar:
            while chunk := answer.read(_CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
        if promised and file.tell() != promised:  # `read` does not tell a lost connection from the end.
            raise ConnectionError(f"{file.tell():,} of {promised:,} bytes came")


def _check(path: Path, shown: Path | str, entry: PublishedWeights, remedy: str) -> None:
    size = path.stat().st_size
    if entry.bytes is not None and size != entry.bytes:
        raise BadWeights(f"{shown} has {size:,} bytes, weights {entry.name} have {entry.bytes:,}; {remedy}")
    for algorithm, published in (("sha256", entry.sha256), ("md5", entry.md5)):
        if published is None:
            continue
        found = _digest(path, algorithm)
        if found != published.lower():
            raise BadWeights(f"{shown} has {algorithm} {found}, weights {entry.name} {published}; {remedy}")
    if entry.md5_ends is not None:
        first, last = entry.md5_ends
        found = _digest(path, "md5")
        if not (found.startswith(first) and found.endswith(last)):
            raise BadWeights(f"{shown} has md5 {found}, weights {entry.name} {first}..{last}; {remedy}")


def _digest(path: Path, algorithm: str) -> str:
    with open_file(path) as file:
        return hashlib.file_digest(file, algorithm).hexdigest()  # type: ignore[arg-type]  # It has `readinto`.
