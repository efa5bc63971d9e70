"""Conversion of a method's options into its settings dataclass, and checks of their numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

from vos_shared.errors import UserError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Settings = TypeVar("Settings", bound=DataclassInstance)


def settings_from(kind: type[Settings], options: Mapping[str, Any], method: str) -> Settings:
    """Make settings from options; the other fields keep their defaults.

    Args:
        kind: the dataclass of settings.
        options: values by field name.
        method: name of the method, for messages.

    Raises:
        UserError: an option is not a field.
    """
    known = [field.name for field in fields(kind)]
    if unknown := sorted(options.keys() - set(known)):
        raise UserError(f"{method} has no option {', '.join(unknown)}; it has {', '.join(known)}")
    return kind(**options)


def changed_settings(settings: DataclassInstance) -> dict[str, Any]:
    """The fields that differ from their defaults."""
    default = type(settings)()
    values = {field.name: getattr(settings, field.name) for field in fields(settings)}
    return {name: value for name, value in values.items() if value != getattr(default, name)}


def require_numbers(
    settings: object,
    method: str,
    *names: str,
    least: float = -math.inf,
    above: float = -math.inf,
    below: float = math.inf,
) -> None:
    """Refuse numbers that are outside their bounds, infinite, or NaN.

    Args:
        settings: holds the numbers; None passes.
        method: its name, for the error.
        names: of the fields.
        least: the smallest number allowed.
        above: the number must be larger than this.
        below: the number must be smaller than this.

    Raises:
        UserError: naming the option, its value and its bounds.
    """
    for name in names:
        value = getattr(settings, name)
        if value is None or (math.isfinite(value) and value >= least and above < value < below):
            continue
        named = {"at least": least, "more than": above, "less than": below}
        bounds = [f"{words} {bound}" for words, bound in named.items() if math.isfinite(bound)]
        bounds += [] if math.isfinite(value) else ["finite"]
        raise UserError(f"{method}: --{name.replace('_', '-')} is {value}; it must be {', '.join(bounds)}")
