"""Published weights: what there is, where, under which licence, and how good; downloaded and checked."""

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

_CHUNK: Final = 1 << 20
_TIMEOUT: Final = 30  # seconds without an answer


@dataclass(frozen=True, kw_only=True)
class PublishedWeights:
    """One entry of a method's table of weights.

    Attributes:
        name: what users call it.
        url: where the file is; empty where only a page that links it is known (`source`).
        bytes: size of the file, where known.
        sha256: of the file, where published or known.
        md5: of the file, where only that is published.
        licence: of the weights, in a word.
        source: who trained them and where that is written.
        scores: published figures by name, such as ``{"DAVIS-2017 val J&F": 69.3}``.
        note: what else a user should know.

    """

    name: str
    url: str
    licence: str
    source: str
    bytes: int | None = None
    sha256: str | None = None
    md5: str | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    note: str = ""

    @property
    def file_name(self) -> str:
        """Name of the file in the cache: the one it has on the web."""
        return PurePosixPath(urlparse(self.url).path).name or self.name


def cache_folder() -> Path:
    """Where downloads are kept: torch hub's folder, ``~/.cache/torch/hub/checkpoints`` unless ``TORCH_HOME`` is set."""
    # As torch.hub.get_dir, without importing torch.
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("TORCH_HOME") or str(Path(cache, "torch"))
    return Path(os.path.expandvars(home)).expanduser() / "hub" / "checkpoints"


def resolve(weights: str | Path | None, table: Mapping[str, PublishedWeights]) -> Path:
    """The file behind what a user gave as weights.

    Args:
        weights: a file, or the name of an entry of the table, which is downloaded once; None is the first entry.
        table: published weights by name.

    Raises:
        BadWeights: neither, or the download fails or has the wrong hash.

    """
    if weights is None:
        if not table:
            raise BadWeights("no weights are published for this method; give a file")
        return fetch(next(iter(table.values())))
    path = Path(weights)
    if path.is_file():
        return path
    if str(weights) in table:
        return fetch(table[str(weights)])
    known = f"published weights are {', '.join(table)}" if table else "there are no published weights either"
    raise BadWeights(f"no weights file {weights}; {known}")


def fetch(entry: PublishedWeights, folder: Path | None = None) -> Path:
    """The file of an entry, downloaded if it is not in the cache; its hash is checked either way.

    Args:
        entry: what to fetch.
        folder: in place of the cache.

    Raises:
        BadWeights: no connection, or not the published file. Nothing is left behind.

    """
    path = (folder or cache_folder()) / entry.file_name
    if path.exists():
        _check(path, path, entry, "delete it, and it is downloaded again")
        return path
    if not entry.url:
        raise BadWeights(
            f"weights {entry.name} are not here: download them from {entry.source} and store them as {path}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        try:
            _download(entry, temporary)
        except (OSError, HTTPException, ValueError) as reason:
            why = " ".join(str(reason).split())  # What a server answered wrongly has its line break in it.
            raise BadWeights(
                f"weights {entry.name} cannot be downloaded ({why}); fetch {entry.url} by other means "
                f"and store it as {path}"
            ) from reason
        _check(temporary, entry.url, entry, "the file on the web has changed or the download is incomplete")
    return path


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(entry: PublishedWeights, path: Path) -> None:
    request = urllib.request.Request(entry.url, headers={"User-Agent": "vos-shared"})
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer, path.open("wb") as file:
        promised = int(answer.headers.get("Content-Length") or 0)
        total = promised or entry.bytes
        with tqdm(total=total, unit="B", unit_scale=True, desc=entry.file_name, file=sys.stderr, disable=None) as bar:
            while chunk := answer.read(_CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
        if promised and file.tell() != promised:  # A lost connection looks like the end of the file.
            raise ConnectionError(f"{file.tell():,} of {promised:,} bytes came")


def _check(path: Path, shown: Path | str, entry: PublishedWeights, remedy: str) -> None:
    size = path.stat().st_size
    if entry.bytes is not None and size != entry.bytes:
        raise BadWeights(f"{shown} has {size:,} bytes, weights {entry.name} have {entry.bytes:,}; {remedy}")
    for algorithm, published in (("sha256", entry.sha256), ("md5", entry.md5)):
        if published is None:
            continue
        with path.open("rb") as file:
            found = hashlib.file_digest(file, algorithm).hexdigest()
        if found != published.lower():
            raise BadWeights(f"{shown} has {algorithm} {found}, weights {entry.name} {published}; {remedy}")
