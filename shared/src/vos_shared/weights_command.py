"""The commands about weights that every method has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import tyro

from vos_shared.checkpoints.published import WeightsTable, cache_folder
from vos_shared.errors import UserError
from vos_shared.tables import text_table

OURS: Final = ".safetensors"
"""Suffix of our own files."""


@dataclass(frozen=True, kw_only=True)
class WeightsCommand:
    """List the weights that there are, or say more of those with a NAME."""

    table: Annotated[WeightsTable, tyro.conf.Suppress, tyro.conf.Fixed]
    name: Annotated[str | None, tyro.conf.Positional] = None
    """Say all that is known of these: licence, address, hash, figures."""
    download: bool = False
    """Fetch those with this NAME into torch hub's cache, and check their hash."""

    def run(self) -> None:
        """Print, fetch.

        Raises:
            UserError: no weights have this name, or they cannot be fetched.
        """
        if self.name is not None:
            facts = self.table.facts(self.name)
            if self.download:
                print(self.table.locate(self.name))
                return
            width = max(map(len, facts))
            print("\n".join(f"{what:<{width}}  {value}" for what, value in facts.items()))
            return
        if self.download:
            raise UserError("--download takes the NAME of weights; the list without options has them")
        print(text_table(["weights", "published", ""], self.table.rows()))
        print(
            f"Published files are kept in {cache_folder()}; a file that is stored there by hand is found by its name."
        )


@dataclass(frozen=True, kw_only=True)
class ConvertArguments:
    """What to convert, and into what."""

    source: Annotated[str, tyro.conf.Positional]
    """A file of ours, an official one (of a TensorFlow checkpoint the prefix, without .index), or the name of published
    weights."""
    output: Annotated[Path, tyro.conf.Positional]
    """The file to write: .safetensors for ours, any other name for an official one."""
    half: bool = False
    """Ours only: store float16, half the size."""

    def to_ours(self, official: str | None) -> bool:
        """Check the options; whether the file to write is one of ours.

        Args:
            official: suffix of official files; None where they may have any name.

        Raises:
            UserError: another suffix, --half for an official file, or a file that would replace its source.
        """
        suffix = self.output.suffix
        if official is not None and suffix not in {OURS, official}:
            raise UserError(f"{self.output} has neither the suffix {OURS} (ours) nor {official} (official)")
        if self.half and suffix != OURS:
            raise UserError("--half is for our own format; official files are in single precision")
        if self.output.exists() and Path(self.source).exists() and self.output.samefile(self.source):
            raise UserError(f"{self.output} would replace the file that it is made from; choose another name")
        return suffix == OURS
