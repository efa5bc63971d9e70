"""The commands about weights that every method has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from vos_shared.errors import UserError

if TYPE_CHECKING:
    from vos_shared.checkpoints.published import WeightsTable


@dataclass(frozen=True, kw_only=True)
class WeightsCommand(ABC):
    """List the weights that there are, or say more of those with a NAME."""

    name: Annotated[str | None, tyro.conf.Positional] = None
    """Say all that is known of these: licence, address, hash, figures."""
    download: bool = False
    """Fetch those with this NAME into torch hub's cache, and check their hash."""

    @property
    @abstractmethod
    def table(self) -> WeightsTable:
        """The method's weights."""

    def run(self) -> None:
        """Print, fetch.

        Raises:
            UserError: no weights have this name, or they cannot be fetched.
        """
        from vos_shared.checkpoints.published import cache_folder
        from vos_shared.tables import text_table

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


def refuse_same_file(source: str | Path, output: Path) -> None:
    """Refuse to replace a file by what is made from it.

    Raises:
        UserError: naming it.
    """
    if output.exists() and Path(source).exists() and output.samefile(source):
        raise UserError(f"{output} would replace the file that it is made from; choose another name")
