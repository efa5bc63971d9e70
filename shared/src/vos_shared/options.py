"""Conversion of a method's options into its settings dataclass."""

from __future__ import annotations

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
