"""Results folders: the masks of each sequence appear together or not at all.

Masks are ``<root>/<sequence>/<frame>.png``. ``<root>/.manifest/<sequence>.json`` records the inputs and settings with
which they were made; with one record per sequence, processes and machines can share a folder. Sequences that are being
written are in ``<root>/.partial/``.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any, Final

from vos_shared.atomic import write_json
from vos_shared.errors import BadResults
from vos_shared.files import read_json
from vos_shared.folders import mask_files
from vos_shared.locks import locked
from vos_shared.masks import write_mask
from vos_shared.method import ObjectMask
from vos_shared.tables import listed, ranges

MASKS: Final = "masks"
SOFT_MASKS: Final = "soft masks"
LONGEST_NAME: Final = 240
"""Longest name of a sequence in bytes; the names of records and partial folders are longer and limited to 255."""
_LOCK: Final = ".lock"
_EXCHANGE_SECONDS: Final = 60
"""Longest wait for a lock. Replacing a folder is fast; a lock held for longer is left from a machine that failed."""


class SequenceWriter:
    """Writes the masks of a sequence; returned by `ResultsTree.writer`.

    Attributes:
        folder: folder of the sequence until it is finished.
    """

    def __init__(self, folder: Path, frame_names: Sequence[str]) -> None:
        self.folder = folder
        self._frame_names = frozenset(frame_names)
        self._extra: dict[str, Any] = {}

    def write(self, frame_name: str, mask: ObjectMask) -> None:
        """Write the mask of a frame, ids as uint8 [H, W].

        Raises:
            BadResults: the sequence has no such frame.
            BadMask: the mask is not uint8 [H, W].
        """
        if frame_name not in self._frame_names:
            raise BadResults(f"{self.folder.name}: there is no frame {frame_name} in this sequence")
        write_mask(self.folder / f"{frame_name}.png", mask)

    def extra(self, record: Mapping[str, Any]) -> None:
        """Add JSON values (times, memory) to the record of the sequence, see `ResultsTree.record`."""
        self._extra.update(record)


class ResultsTree:
    """A results folder, written with one set of settings.

    Attributes:
        root: the folder, created when something is written.
        settings: what the masks depend on besides the inputs (method, weights, options), as JSON values.
        kind: content of the sequences, such as `MASKS` or `SOFT_MASKS`; one kind never replaces another.
    """

    def __init__(self, root: str | Path, *, settings: Mapping[str, Any] | None = None, kind: str = MASKS) -> None:
        self.root, self.kind = Path(root).absolute(), kind  # A method may change the working folder.
        self.settings = dict(settings or {})
        if self.root.exists() and not self.root.is_dir():
            raise BadResults(f"results cannot go to {self.root}: that is a file, not a folder")

    def is_complete(self, sequence_name: str, frame_names: Sequence[str], inputs: str = "") -> bool:
        """Whether all masks exist and were made from these inputs with these settings."""
        return self.is_finished(sequence_name, inputs) and not _missing(self.folder(sequence_name), frame_names)

    def is_finished(self, sequence_name: str, inputs: str = "") -> bool:
        """Whether the folder of a sequence exists and was made from these inputs with these settings."""
        record = self.record(sequence_name) or {}
        made_from = (record.get("settings_hash"), record.get("inputs"))
        return made_from == (fingerprint(self.settings), inputs) and self.folder(sequence_name).is_dir()

    @contextmanager
    def writer(
        self, sequence_name: str, frame_names: Sequence[str], inputs: str = "", *, source: str = ""
    ) -> Iterator[SequenceWriter]:
        """Write a sequence; its masks appear together when the block ends, and not if it raises.

        Args:
            sequence_name: name of the sequence.
            frame_names: all frames of the sequence.
            inputs: fingerprint of the inputs.
            source: path of the video; masks of another video of the same name are not replaced.

        Raises:
            BadResults: the name cannot name a folder; the folder exists and was not written as results, belongs to
                another video, or was edited by hand; at the end of the block, masks are missing.
        """
        self._require_same_source(sequence_name, inputs, source)
        self._require_unedited(sequence_name)
        said: dict[str, Any] = {"source": source}
        with self.replacing(sequence_name, inputs, said) as partial:
            writer = SequenceWriter(partial, frame_names)
            yield writer
            lacking = _missing(partial, frame_names)
            if lacking:
                raise BadResults(
                    f"{self.folder(sequence_name)} would lack {len(lacking)} of {len(frame_names)} masks: "
                    f"{ranges(lacking, frame_names)}"
                )
            said.update(frames=len(frame_names), bytes=_bytes(partial), extra=writer._extra)

    @contextmanager
    def replacing(self, sequence_name: str, inputs: str = "", said: Mapping[str, Any] | None = None) -> Iterator[Path]:
        """Replace the folder of a sequence when the block ends, but not if it raises.

        Args:
            sequence_name: name of the sequence.
            inputs: fingerprint of the inputs.
            said: further entries of the record, read when the block ends.

        Yields:
            An empty folder to fill.

        Raises:
            BadResults: as `require_ours`.
        """
        self.require_ours(sequence_name)
        target, entry = self.folder(sequence_name), self._entry(sequence_name)
        record = {
            "sequence": sequence_name,
            "kind": self.kind,
            "inputs": inputs,
            "settings": self.settings,
            "settings_hash": fingerprint(self.settings),
        }
        with partial_folder(self.root, sequence_name) as partial:
            yield partial
            with self._only_one(sequence_name):
                write_json(entry, {**record, "finished": None})
                _exchange(partial, target)
                finished = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
                write_json(entry, {**record, "finished": finished, **(said or {})})

    @contextmanager
    def _only_one(self, sequence_name: str) -> Iterator[None]:
        """Lock a sequence, so that its masks and its record come from the same run."""
        path = self.root / ".manifest" / f".{sequence_name}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path, seconds=_EXCHANGE_SECONDS):
            yield

    def record(self, sequence_name: str) -> dict[str, Any] | None:
        """The record of a finished sequence (settings, inputs, time, ``extra``); None if it is not finished."""
        self.folder(sequence_name)
        record = read_record(self._entry(sequence_name))
        return record if record and record.get("finished") else None

    def folder(self, sequence_name: str) -> Path:
        """The folder of a sequence.

        Raises:
            BadResults: the name leads out of the results folder, is hidden, or too long.
        """
        if not sequence_name or sequence_name.startswith(".") or ".." in sequence_name:
            raise BadResults(f"{sequence_name!r} cannot name a sequence; a sequence is a folder name")
        if any(mark in sequence_name for mark in ("/", "\\", "\0")):
            raise BadResults(f"{sequence_name!r} cannot name a sequence; a sequence is a folder name, not a path")
        if len(os.fsencode(sequence_name)) > LONGEST_NAME:
            raise BadResults(f"{sequence_name!r} is too long for the name of a folder; rename it")
        return self.root / sequence_name

    def require_ours(self, sequence_name: str) -> None:
        """Check that the folder of a sequence does not exist or was written as results of this kind.

        Raises:
            BadResults: the folder holds something else, such as frames or true masks; or as `folder`.
        """
        target = self.folder(sequence_name)
        if not target.exists():
            return
        written = read_record(self._entry(sequence_name))
        if written is None:
            raise BadResults(f"{target} is there already and was not written as results; choose another output folder")
        if written.get("kind", MASKS) != self.kind:
            raise BadResults(
                f"{target} holds {written['kind']}, which {self.kind} would replace; choose another folder"
            )

    def _require_same_source(self, sequence_name: str, inputs: str, source: str) -> None:
        """Raise `BadResults` if the folder holds the masks of another video of the same name."""
        record = self.record(sequence_name) or {}
        before = record.get("source")
        if before and source and before != source and record.get("inputs") != inputs:
            raise BadResults(
                f"{self.folder(sequence_name)} holds the masks of {before}, not of {source}; "
                "choose another output folder, or remove it"
            )

    def is_edited(self, sequence_name: str) -> bool:
        """Whether the masks of a finished sequence were edited: all exist, and their total size differs."""
        record, folder = self.record(sequence_name) or {}, self.folder(sequence_name)
        whole = len(list(folder.glob("*.png"))) == record.get("frames")
        return whole and "bytes" in record and _bytes(folder) != record["bytes"]

    def _require_unedited(self, sequence_name: str) -> None:
        """Raise `BadResults` if the masks were edited by hand."""
        if not self._entry(sequence_name).is_file():
            return
        with self._only_one(sequence_name):
            edited = self.is_edited(sequence_name)
        if edited:
            raise BadResults(
                f"the masks in {self.folder(sequence_name)} were changed after they were written; move them away, or "
                "choose another output folder"
            )

    def _entry(self, sequence_name: str) -> Path:
        return self.root / ".manifest" / f"{sequence_name}.json"


def read_record(path: Path) -> dict[str, Any] | None:
    """Read the record of a sequence, finished or not; None if it is missing or unreadable."""
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def check_places(trees: Sequence[ResultsTree], sequence_names: Iterable[str]) -> None:
    """Check, before any work, that results replace neither other content nor each other.

    Args:
        trees: the results folders to write.
        sequence_names: the sequences to write to each of them.

    Raises:
        BadResults: names the folder that would be replaced.
    """
    names = list(sequence_names)
    for one, other in combinations(trees, 2):
        require_apart(one.root, other.root, names)
    for tree in trees:
        for name in names:
            tree.require_ours(name)


def require_apart(one: Path, other: Path, sequence_names: Iterable[str]) -> None:
    """Check that two results folders do not replace each other.

    Args:
        one: root of one of them.
        other: root of the other.
        sequence_names: the sequences to write to both.

    Raises:
        BadResults: they are equal, or one is inside the folder of a sequence of the other.
    """
    names = list(sequence_names)
    for inner, outer in ((one.resolve(), other.resolve()), (other.resolve(), one.resolve())):
        if inner == outer or any(inner.is_relative_to(outer / name) for name in names):
            raise BadResults(f"{one} and {other} would replace each other; choose two folders side by side")


@contextmanager
def partial_folder(root: Path, name: str) -> Iterator[Path]:
    """Make a temporary folder below ``<root>/.partial``; it is removed when the block ends, unless it was moved.

    The folder is locked while the block runs. Folders without a lock were left by killed runs and are removed here.

    Args:
        root: root of the results folder.
        name: readable beginning of the folder's name; at most `LONGEST_NAME` bytes.
    """
    partial = root / ".partial"
    partial.mkdir(parents=True, exist_ok=True)
    _sweep_abandoned(partial)
    folder = partial / f"{name}.{secrets.token_hex(4)}"
    try:
        with locked(_lock_of(folder), seconds=0):
            folder.mkdir()
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _lock_of(folder).unlink(missing_ok=True)


def _sweep_abandoned(partial: Path) -> None:
    """Remove partial folders of killed runs: those that no process has locked."""
    for folder in partial.glob("*"):
        if folder.suffix == _LOCK:
            continue
        with locked(_lock_of(folder), seconds=0) as held:
            if held:
                shutil.rmtree(folder, ignore_errors=True)
        if held:
            _lock_of(folder).unlink(missing_ok=True)


def _lock_of(folder: Path) -> Path:
    return folder.with_name(folder.name + _LOCK)


def require_masks(root: str | Path, frame_names: Mapping[str, Sequence[str]]) -> None:
    """Check that a results folder of any program has a mask for each frame.

    Args:
        root: folder of ``<sequence>/<frame>.png``.
        frame_names: names of the frames by sequence.

    Raises:
        BadResults: no such folder, or masks are missing; names all of them.
    """
    root = Path(root)
    if not root.is_dir():
        raise BadResults(f"no such results folder: {root}")
    lacking = {name: missing for name, frames in frame_names.items() if (missing := _missing(root / name, frames))}
    if lacking:
        count = sum(map(len, lacking.values()))
        text = listed((f"{name}: {ranges(frames, frame_names[name])}" for name, frames in lacking.items()), "; ")
        raise BadResults(f"{root} lacks {count} {'mask' if count == 1 else 'masks'}: {text}")


def fingerprint(value: Any) -> str:
    """Hash of a JSON value, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _bytes(folder: Path) -> int:
    """Total size of the masks in a folder."""
    return sum(path.stat().st_size for path in folder.glob("*.png"))


def _missing(folder: Path, frame_names: Sequence[str]) -> list[str]:
    there = mask_files(folder)
    return [name for name in frame_names if name not in there]


def _exchange(new: Path, target: Path) -> None:
    """Replace a folder by another; the last of several processes wins."""
    for _ in range(10):
        old = new.with_name(f"{new.name}.old")
        try:
            target.rename(old)
        except FileNotFoundError:
            pass
        else:
            shutil.rmtree(old, ignore_errors=True)
        try:
            new.rename(target)
        except OSError:  # Meanwhile another process has written the same sequence.
            continue
        return
    raise BadResults(f"{target} cannot be replaced; are several runs writing it at once?")
