"""A tree of results: masks of each sequence, complete or not there at all.

``<root>/<sequence>/<frame>.png`` are the masks. ``<root>/.manifest/<sequence>.json`` says with which inputs and
settings they were made: one file a sequence, so that processes and machines can share a tree. Only
the moment in which a sequence takes its place is locked.
``<root>/.partial/`` holds sequences that are being written.
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
"""Bytes of a sequence's name; file systems allow 255, and names of records and unfinished folders are longer."""
_LOCK: Final = ".lock"
_EXCHANGE_SECONDS: Final = 60
"""Exchanging a folder takes a moment; a lock that is held for longer was left by a machine that is gone."""


class SequenceWriter:
    """Takes the masks of one sequence; made by `ResultsTree.writer`.

    Attributes:
        folder: where files of the sequence are written until it is finished.
    """

    def __init__(self, folder: Path, frame_names: Sequence[str]) -> None:
        self.folder = folder
        self._frame_names = frozenset(frame_names)
        self._extra: dict[str, Any] = {}

    def write(self, frame_name: str, mask: ObjectMask) -> None:
        """Write the mask of a frame, ids as uint8 [H, W].

        Raises:
            BadResults: the sequence has no such frame.
            BadMask: not uint8 [H, W].
        """
        if frame_name not in self._frame_names:
            raise BadResults(f"{self.folder.name}: there is no frame {frame_name} in this sequence")
        write_mask(self.folder / f"{frame_name}.png", mask)

    def extra(self, record: Mapping[str, Any]) -> None:
        """Keep something beside the masks (JSON: times, memory); it comes back from `ResultsTree.record`."""
        self._extra.update(record)


class ResultsTree:
    """Masks of many sequences, made with one set of settings.

    Attributes:
        root: its folder, made when something is written.
        settings: what the masks depend on beside the inputs: method, weights, options, as JSON values.
        kind: what a sequence's folder holds, `MASKS` or `SOFT_MASKS`; one never replaces the other.
    """

    def __init__(self, root: str | Path, *, settings: Mapping[str, Any] | None = None, kind: str = MASKS) -> None:
        self.root, self.kind = Path(root).absolute(), kind  # A method may change the working folder.
        self.settings = dict(settings or {})
        if self.root.exists() and not self.root.is_dir():
            raise BadResults(f"results cannot go to {self.root}: that is a file, not a folder")

    def is_complete(self, sequence_name: str, frame_names: Sequence[str], inputs: str = "") -> bool:
        """Whether all masks are there, made from these inputs with these settings."""
        return self.is_finished(sequence_name, inputs) and not _missing(self.folder(sequence_name), frame_names)

    def is_finished(self, sequence_name: str, inputs: str = "") -> bool:
        """Whether the folder of a sequence is there and was made from these inputs with these settings."""
        record = self.record(sequence_name) or {}
        made_from = (record.get("settings_hash"), record.get("inputs"))
        return made_from == (fingerprint(self.settings), inputs) and self.folder(sequence_name).is_dir()

    @contextmanager
    def writer(
        self,
        sequence_name: str,
        frame_names: Sequence[str],
        inputs: str = "",
        *,
        source: str = "",
    ) -> Iterator[SequenceWriter]:
        """Write one sequence; its masks appear together when the block ends, and not if it raises.

        Args:
            sequence_name: a folder name.
            frame_names: every frame of the sequence.
            inputs: a fingerprint of what the masks are made from.
            source: where that is, such as the path of the video; masks of another place are not replaced.

        Raises:
            BadResults: not a folder name; the sequence is there already, but from somebody else, such as frames or
                true masks, or another video of this name, or somebody has changed its masks since; at the end, frames
                without a mask.
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
        """Fill the folder of a sequence; it takes its place when the block ends, and not if it raises.

        Args:
            sequence_name: a folder name.
            inputs: a fingerprint of what the content is made from.
            said: more entries of the record, read when the block ends.

        Yields:
            An empty folder.

        Raises:
            BadResults: as `require_ours`.
        """
        self.require_ours(sequence_name)
        target, record = self.folder(sequence_name), self._record(sequence_name, inputs)
        with partial_folder(self.root, sequence_name) as partial:
            yield partial
            with self._only_one(sequence_name):
                write_json(self._entry(sequence_name), {**record, "finished": None})
                _exchange(partial, target)
                finished = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
                write_json(self._entry(sequence_name), {**record, "finished": finished, **(said or {})})

    @contextmanager
    def _only_one(self, sequence_name: str) -> Iterator[None]:
        """Keep other processes from a sequence for a moment, so that its masks and its record are of one run."""
        path = self.root / ".manifest" / f".{sequence_name}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path, seconds=_EXCHANGE_SECONDS):
            yield

    def record(self, sequence_name: str) -> dict[str, Any] | None:
        """What is known of a finished sequence: settings, inputs, time; of masks number, ``extra``; else None."""
        self.folder(sequence_name)
        record = self._entry_content(sequence_name)
        return record if record and record.get("finished") else None

    def folder(self, sequence_name: str) -> Path:
        """Where the masks of a sequence are.

        Raises:
            BadResults: the name would lead out of the tree, or is hidden.
        """
        if not sequence_name or sequence_name.startswith(".") or ".." in sequence_name:
            raise BadResults(f"{sequence_name!r} cannot name a sequence; a sequence is a folder name")
        if any(mark in sequence_name for mark in ("/", "\\", "\0")):
            raise BadResults(f"{sequence_name!r} cannot name a sequence; a sequence is a folder name, not a path")
        if len(os.fsencode(sequence_name)) > LONGEST_NAME:
            raise BadResults(f"{sequence_name!r} is too long for the name of a folder; rename it")
        return self.root / sequence_name

    def require_ours(self, sequence_name: str) -> None:
        """Refuse to replace a folder that was not written as results of this kind.

        Raises:
            BadResults: it is there, from somebody else, such as frames or true masks; or the name is not a folder name.
        """
        target = self.folder(sequence_name)
        if not target.exists():
            return
        written = self._entry_content(sequence_name)
        if written is None:
            raise BadResults(f"{target} is there already and was not written as results; choose another output folder")
        if written.get("kind", MASKS) != self.kind:
            raise BadResults(
                f"{target} holds {written['kind']}, which {self.kind} would replace; choose another folder"
            )

    def _require_same_source(self, sequence_name: str, inputs: str, source: str) -> None:
        """Refuse to replace the masks of another video that has the same name."""
        record = self.record(sequence_name) or {}
        before = record.get("source")
        if before and source and before != source and record.get("inputs") != inputs:
            raise BadResults(
                f"{self.folder(sequence_name)} holds the masks of {before}, not of {source}; "
                "choose another output folder, or remove it"
            )

    def is_edited(self, sequence_name: str) -> bool:
        """Whether somebody has changed the masks of a finished sequence: all are there, and their size differs."""
        record, folder = self.record(sequence_name) or {}, self.folder(sequence_name)
        whole = len(list(folder.glob("*.png"))) == record.get("frames")
        return whole and "bytes" in record and _bytes(folder) != record["bytes"]

    def _require_unedited(self, sequence_name: str) -> None:
        """Refuse to replace masks that somebody has corrected by hand."""
        if not self._entry(sequence_name).is_file():
            return
        with self._only_one(sequence_name):
            edited = self.is_edited(sequence_name)
        if edited:
            raise BadResults(
                f"the masks in {self.folder(sequence_name)} were changed after they were written; move them away, or "
                "choose another output folder"
            )

    def _entry_content(self, sequence_name: str) -> dict[str, Any] | None:
        """The record, also of a sequence that is not finished; None where there is none that can be read."""
        try:
            content = read_json(self._entry(sequence_name))
        except (OSError, ValueError):
            return None
        return content if isinstance(content, dict) else None

    def _entry(self, sequence_name: str) -> Path:
        return self.root / ".manifest" / f"{sequence_name}.json"

    def _record(self, sequence_name: str, inputs: str) -> dict[str, Any]:
        return {
            "sequence": sequence_name,
            "kind": self.kind,
            "inputs": inputs,
            "settings": self.settings,
            "settings_hash": fingerprint(self.settings),
        }


def check_places(trees: Sequence[ResultsTree], sequence_names: Iterable[str]) -> None:
    """Refuse, before any work, to replace what somebody else has written, or one tree by another.

    Args:
        trees: what will be written.
        sequence_names: to each of them.

    Raises:
        BadResults: naming the folder.
    """
    names = list(sequence_names)
    for one, other in combinations(trees, 2):
        require_apart(one.root, other.root, names)
    for tree in trees:
        for name in names:
            tree.require_ours(name)


def require_apart(one: Path, other: Path, sequence_names: Iterable[str]) -> None:
    """Refuse two trees if one would replace the other when it puts a sequence into its place.

    Args:
        one: root of one of them.
        other: of the other.
        sequence_names: what will be written to both.

    Raises:
        BadResults: they are the same, or one lies in the folder of a sequence of the other.
    """
    names = list(sequence_names)
    for inner, outer in ((one.resolve(), other.resolve()), (other.resolve(), one.resolve())):
        if inner == outer or any(inner.is_relative_to(outer / name) for name in names):
            raise BadResults(f"{one} and {other} would replace each other; choose two folders side by side")


@contextmanager
def partial_folder(root: Path, name: str) -> Iterator[Path]:
    """A folder below ``<root>/.partial`` for what is being written; what is left in it when the block ends is removed.

    It is locked while the block runs, so that other runs can tell it from what killed runs left, which is removed here.

    Args:
        root: of the tree.
        name: of what is written, for people who look; at most `LONGEST_NAME` bytes.
    """
    partial = root / ".partial"
    partial.mkdir(parents=True, exist_ok=True)
    sweep_abandoned(partial)
    folder = partial / f"{name}.{secrets.token_hex(4)}"
    try:
        with locked(_lock_of(folder), seconds=0):
            folder.mkdir()
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _lock_of(folder).unlink(missing_ok=True)


def sweep_abandoned(partial: Path) -> None:
    """Remove what killed runs left in a folder of unfinished results: what no running process has locked."""
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


def missing_frames(
    root: str | Path, frame_names: Mapping[str, Sequence[str]], *, check: bool = False
) -> dict[str, list[str]]:
    """Frames without a mask in a results folder, whoever wrote it.

    Args:
        root: folder of ``<sequence>/<frame>.png``.
        frame_names: the frames that should be there, by sequence.
        check: raise if any lacks.

    Returns:
        The missing frames of each incomplete sequence.

    Raises:
        BadResults: no such folder; with `check`, a list of everything that is missing.
    """
    root = Path(root)
    if not root.is_dir():
        raise BadResults(f"no such results folder: {root}")
    lacking = {name: missing for name, frames in frame_names.items() if (missing := _missing(root / name, frames))}
    if check and lacking:
        count = sum(map(len, lacking.values()))
        text = listed((f"{name}: {ranges(frames, frame_names[name])}" for name, frames in lacking.items()), "; ")
        raise BadResults(f"{root} lacks {count} {'mask' if count == 1 else 'masks'}: {text}")
    return lacking


def fingerprint(value: Any) -> str:
    """Hash of a JSON value that does not depend on the order of keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _bytes(folder: Path) -> int:
    """Size of all masks in a folder, which need not be there."""
    return sum(path.stat().st_size for path in folder.glob("*.png"))


def _missing(folder: Path, frame_names: Sequence[str]) -> list[str]:
    there = mask_files(folder)
    return [name for name in frame_names if name not in there]


def _exchange(new: Path, target: Path) -> None:
    """Put a folder in the place of another, which is removed; the last of several processes wins."""
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
        except OSError:  # Another process has put the same sequence there in the meantime.
            continue
        return
    raise BadResults(f"{target} cannot be replaced; are several runs writing it at once?")
