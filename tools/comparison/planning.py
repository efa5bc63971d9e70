"""From options to jobs: which methods run, with which weights, and under which settings."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, entry_points
from importlib.util import find_spec
from pathlib import Path

from comparison.inputs import Inputs
from comparison.jobs import Job
from comparison.options import Options, check_row_name, named_values
from comparison.records import Given, Row
from vos_shared.errors import UserError
from vos_shared.method import ENTRY_POINT_GROUP, Method, Supervision, discover, find_variant

NEEDS_PROMPT = "it must be told the objects in the first frame: give --prompt MASK"
BROKEN = "its package cannot be used"
GIVEN = {Supervision.FIRST_FRAME: Given.FIRST_MASK, Supervision.NONE: Given.NOTHING}


@dataclass(frozen=True)
class Plan:
    """What is run.

    Attributes:
        jobs: one for each row that can run; `inputs` is still empty.
        stillborn: rows that cannot, with the reason as their failure.
        versions: version of each distribution that brings a method of the plan.
    """

    jobs: tuple[Job, ...]
    stillborn: tuple[Row, ...]
    versions: Mapping[str, str]


def plan(options: Options, inputs: Inputs) -> Plan:
    """Choose methods and weights.

    Args:
        options: the command line.
        inputs: what is segmented.

    Raises:
        UserError: an unknown method, weights for a method that does not run, an unusable device or precision.
    """
    weights = named_values("--weights", options.weights)
    chosen, broken = _chosen(options.methods)
    if strangers := weights.keys() - {name for method, variant in chosen for name in (method.name, variant)}:
        raise UserError(f"--weights {min(strangers)}=..: no such method runs in this comparison")
    device = _device(options)
    jobs, stillborn = [], [_stillborn(name, f"{BROKEN}: {reason}", options) for name, reason in broken.items()]
    for method, variant in chosen:
        check_row_name(variant)
        if method.supervision is Supervision.FIRST_FRAME and not all(item.annotations for item in inputs.sequences):
            stillborn.append(_stillborn(variant, NEEDS_PROMPT, options, method))
            continue
        own_weights = weights.get(variant, weights.get(method.name))
        jobs.append(_job(method, variant, own_weights, device, options, inputs))
    return Plan(tuple(jobs), tuple(stillborn), _versions(method for method, _ in chosen))


def _device(options: Options) -> str:
    """The device that ``auto`` stands for."""
    from vos_shared.runtime.device import choose_device, choose_precision  # Here: it loads PyTorch, for seconds.

    device = choose_device(options.device)
    choose_precision(options.precision, device)
    return str(device)


def _chosen(names: Iterable[str] | None) -> tuple[list[tuple[Method, str]], dict[str, str]]:
    """Methods with their variants, and the reason for each that was asked for and cannot even be imported."""
    methods, broken = discover()
    if names is None:
        return [(method, method.name) for method in methods.values()], broken
    wanted = list(dict.fromkeys(names))
    return (
        [find_variant(name, methods.values()) for name in wanted if name not in broken],
        {name: broken[name] for name in wanted if name in broken},
    )


def _stillborn(name: str, failure: str, options: Options, method: Method | None = None) -> Row:
    check_row_name(name)
    title, paper = (method.title, method.paper) if method else (name, "")
    return Row(name, title, paper, Given.FIRST_MASK, options.output / "masks" / name, failure=failure)


def _job(method: Method, variant: str, weights: str | None, device: str, options: Options, inputs: Inputs) -> Job:
    settings: dict[str, str | int | None] = {
        "method": method.name,
        "variant": variant,
        "package": _package_digest(method),
        "weights": _weights_digest(weights),
        "device": device,
        "precision": options.precision,
        "seed": options.seed,
    }
    return Job(
        method=method.name,
        variant=variant,
        title=method.title,
        paper=method.paper,
        given=GIVEN[method.supervision],
        weights=weights,
        device=device,
        precision=options.precision,
        seed=options.seed,
        masks=options.output / "masks" / variant,
        log=options.output / "logs" / f"{variant}.log",
        settings=settings,
        sequences=inputs.sequences,
        inputs={},
    )


def _weights_digest(weights: str | None) -> str | None:
    """Hash of a weights file; a name stands for itself, since the method's table says what it means."""
    if weights is None or not Path(weights).is_file():
        return weights
    with Path(weights).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _package_digest(method: Method) -> str:
    """Hash of all files of a method's package, code and shipped weights: other files may mean other masks."""
    digest = hashlib.sha256()
    for path in _package_files(method.loader.partition(":")[0].partition(".")[0]):
        digest.update(path.name.encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
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


def _versions(methods: Iterable[Method]) -> dict[str, str]:
    names = {method.name for method in methods}
    found = [entry.dist for entry in entry_points(group=ENTRY_POINT_GROUP) if entry.name in names]
    return {dist.name: dist.version for dist in found if isinstance(dist, Distribution)}
