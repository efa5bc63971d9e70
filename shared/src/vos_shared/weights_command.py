"""Commands about weights that every method has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import tyro

from vos_shared.checkpoints.published import WeightsTable, cache_folder
from vos_shared.errors import UserError
from vos_shared.tables import text_table

OURS: Final = ".safetensors"
"""Suffix of files in our format."""


@dataclass(frozen=True, kw_only=True)
class WeightsCommand:
    """List all weights, or show details of those with a NAME."""

    table: Annotated[WeightsTable, tyro.conf.Suppress, tyro.conf.Fixed]
    name: Annotated[str | None, tyro.conf.Positional] = None
    """Show all that is known of these weights: licence, address, hash, scores."""
    download: bool = False
    """Download the weights NAME to torch hub's cache and check their hash."""

    def run(self) -> None:
        """Print and download.

        Raises:
            UserError: no weights have this name, or they cannot be downloaded.
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
    """The options of commands that convert weights."""

    source: Annotated[str, tyro.conf.Positional]
    """A file in our or the official format (for a TensorFlow checkpoint its prefix, without .index), or the name of
    published weights."""
    output: Annotated[Path, tyro.conf.Positional]
    """The file to write: .safetensors for our format, any other name for the official one."""
    half: bool = False
    """For our format: store float16, half the size."""

    def to_ours(self, official: str | None) -> bool:
        """Check the options; returns whether the file to write is in our format.

        Args:
            official: suffix of official files; None if they may have any name.

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
