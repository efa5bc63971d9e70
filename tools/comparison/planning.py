"""From options to jobs: which methods run, with which weights and settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, entry_points

from comparison.discovery import find_methods
from comparison.inputs import Inputs
from comparison.jobs import Job
from comparison.options import Options, named_values
from comparison.records import Given, Row
from vos_shared.errors import UserError
from vos_shared.method import ENTRY_POINT_GROUP, Method, Supervision, find_variant
from vos_shared.provenance import package_digest, weights_digest

NEEDS_PROMPT = "it must be told the objects in the first frame: give --prompt MASK"
NEEDS_MASKS = "it must be told the objects in the first frame, and the data set has no Annotations"
BROKEN = "its package cannot be used"
GIVEN = {Supervision.FIRST_FRAME: Given.FIRST_MASK, Supervision.NONE: Given.NOTHING}


@dataclass(frozen=True)
class Choice:
    """The methods to run.

    Attributes:
        methods: each method with the name of its variant.
        broken: by name, why a method cannot be imported.
        entries: entry point of each method, by its name.
        weights: by name of a method or variant.
    """

    methods: tuple[tuple[Method, str], ...]
    broken: Mapping[str, str]
    entries: Mapping[str, str]
    weights: Mapping[str, str]

    @property
    def names(self) -> list[str]:
        """The rows' names."""
        return [variant for _, variant in self.methods]

    def versions(self) -> dict[str, str]:
        """Version of each distribution that provides one of the methods."""
        names = {method.name for method, _ in self.methods}
        found = [entry.dist for entry in entry_points(group=ENTRY_POINT_GROUP) if entry.name in names]
        return {dist.name: dist.version for dist in found if isinstance(dist, Distribution)}


def choose_methods(options: Options) -> Choice:
    """Find the methods that the options name.

    Raises:
        UserError: an unknown method, or weights for one that does not run.
    """
    log = options.output / "logs" / "discovery.log"
    found = find_methods(options.methods, log, options.patience)
    methods, broken = found.methods, found.broken
    if options.methods is None:
        chosen = [(method, method.name) for method in methods.values()]
    else:
        wanted = list(dict.fromkeys(options.methods))
        chosen = [find_variant(name, methods.values()) for name in wanted if name not in broken]
        broken = {name: broken[name] for name in wanted if name in broken}
    weights = named_values("--weights", options.weights)
    if strangers := weights.keys() - {name for method, variant in chosen for name in (method.name, variant)}:
        raise UserError(f"--weights {min(strangers)}=..: no such method runs in this comparison")
    return Choice(tuple(chosen), broken, found.entries, weights)


def plan(choice: Choice, options: Options, inputs: Inputs, digests: Mapping[str, str]) -> tuple[list[Job], list[Row]]:
    """Make a job for each method that can run, and a failed row with the reason for each other one.

    Args:
        choice: what to run.
        options: device, precision, output.
        inputs: what is segmented.
        digests: fingerprint of each sequence.

    Raises:
        UserError: an unusable device or precision.
    """
    device, machine = _device(options)
    jobs, stillborn = [], [_stillborn(name, f"{BROKEN}: {why}", options) for name, why in choice.broken.items()]
    for method, variant in choice.methods:
        if method.supervision is Supervision.FIRST_FRAME and not all(item.annotations for item in inputs.sequences):
            stillborn.append(_stillborn(variant, NEEDS_PROMPT if options.video else NEEDS_MASKS, options, method))
            continue
        weights = choice.weights.get(variant, choice.weights.get(method.name))
        jobs.append(
            _job(method, variant, choice.entries[method.name], weights, device, machine, options, inputs, digests)
        )
    return jobs, stillborn


def _device(options: Options) -> tuple[str, str]:
    """The device, with ``auto`` resolved, and the facts that speed depends on."""
    import torch  # Not at the top: importing it takes seconds.

    from vos_shared.runtime.device import choose_device, choose_precision, describe_device

    device = choose_device(options.device)
    choose_precision(options.precision, device)
    return str(device), f"{describe_device(device)}, PyTorch {torch.__version__}"


def _stillborn(name: str, failure: str, options: Options, method: Method | None = None) -> Row:
    title, paper = (method.title, method.paper) if method else (name, "")
    return Row(name, title, paper, Given.FIRST_MASK, options.output / "masks" / name, failure=failure)


def _job(
    method: Method,
    variant: str,
    entry: str,
    weights: str | None,
    device: str,
    machine: str,
    options: Options,
    inputs: Inputs,
    digests: Mapping[str, str],
) -> Job:
    settings: dict[str, str | int | list[str] | None] = {
        "method": method.name,
        "variant": variant,
        "package": package_digest(method),
        "weights": weights_digest(weights),
        "device": device,
        "machine": machine,
        "precision": options.precision,
        "seed": options.seed,
    }
    return Job(
        method=method.name,
        entry=entry,
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
        inputs=digests,
    )
