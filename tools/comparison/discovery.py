"""Finds the installed methods; code of their packages never runs in the process of the comparison."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from multiprocessing.connection import Connection
from pathlib import Path

from comparison.events import Began, Described, Failed, Finished, reason_of
from comparison.options import check_row_name
from comparison.processes import detach, events_of
from vos_shared.method import ENTRY_POINT_GROUP, Method, Supervision

IMPORT_SECONDS = 120.0
"""Longest time that the import of a package may take; importing a method does not import PyTorch."""


@dataclass(frozen=True)
class Found:
    """The installed methods.

    Attributes:
        methods: by name, in alphabetical order, with variants by name only.
        entries: the entry point of each method, as ``module:attribute``.
        broken: why an entry point cannot be used, by its name.
    """

    methods: dict[str, Method]
    entries: dict[str, str]
    broken: dict[str, str]


def find_methods(wanted: Sequence[str] | None, log: Path, seconds: float) -> Found:
    """Describe the installed methods in a separate process; each package that ends or blocks it costs another one.

    Args:
        wanted: names of methods or variants; None for all methods.
        log: what the packages print goes here.
        seconds: time without progress after which an import is stopped.
    """
    left = _worth_importing(wanted)
    methods: dict[str, Method] = {}
    entries: dict[str, str] = {}
    broken: dict[str, str] = {}
    while left:
        current = left[0]
        with closing(events_of(_describe, (left, log), "discovery", min(seconds, IMPORT_SECONDS))) as events:
            for event in events:
                match event:
                    case Began(name):
                        current = next(entry for entry in left if entry.name == name)
                    case Described(method):
                        methods[method.name], entries[method.name] = method, current.value
                        left = left[1:]
                    case Failed(reason):
                        broken[current.name] = reason
                        left = left[1:]
                    case Finished():
                        left = []
    return Found(dict(sorted(methods.items())), entries, broken)


def _worth_importing(wanted: Sequence[str] | None) -> list[EntryPoint]:
    """All entry points, or only the wanted ones if every wanted name is that of an entry point."""
    installed = {entry.name: entry for entry in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda e: e.name)}
    asked = installed if wanted is None or set(wanted) - installed.keys() else set(wanted)
    # A new object: that of a distribution cannot always be sent to another process.
    return [EntryPoint(name, entry.value, entry.group) for name, entry in installed.items() if name in asked]


def _describe(entries: Iterable[EntryPoint], log: Path, connection: Connection) -> None:
    """Import the entry points one after another, up to the first that fails; the target of the process."""
    detach(log)
    for entry in entries:
        connection.send(Began(entry.name))
        try:
            described = Described(_plain(entry))
        except BaseException as error:  # Any package may be installed, and it may raise anything.
            connection.send(Failed(reason_of(error), is_users=False))
            return
        connection.send(described)
    connection.send(Finished())


def _plain(entry: EntryPoint) -> Method:
    """The method of an entry point, reduced to plain values that any process can unpickle."""
    method = entry.load()
    if not isinstance(method, Method):
        raise TypeError(f"{entry.value} is a {type(method).__name__}, not a vos_shared.method.Method")
    texts = (method.name, method.title, method.paper, method.loader, *method.variants)
    if not all(isinstance(text, str) for text in texts):
        raise TypeError(f"{entry.value}: name, title, paper, loader and names of variants must be text")
    for name in method.variant_names:
        check_row_name(name)
    variants: dict[str, dict[str, object]] = {str(name): {} for name in method.variants}
    name, title, paper, loader = map(str, texts[:4])
    return Method(name, title, paper, Supervision(method.supervision), loader, variants)
