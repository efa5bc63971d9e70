"""How all processes of a run do a stage: together, in shares, or in the first one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tqdm import tqdm

from vos_shared.atomic import write_json
from vos_shared.errors import UserError
from vos_shared.files import read_json
from vos_shared.processing import bar_hidden
from vos_shared.tables import listed
from vos_shared.training.agreement import FAILURES, attempt, most_urgent, own_or_other, together

if TYPE_CHECKING:
    from lightning_fabric import Fabric

T = TypeVar("T")


def progress(total: int | None, unit: str) -> tqdm[Any]:
    """Progress bar of a stage, with the time left."""
    return tqdm(total=total, unit=unit, disable=bar_hidden())


def everywhere(work: Callable[[], T], fabric: Fabric) -> T:
    """Do a share of the work in every process; all succeed, or none goes on."""
    result = attempt(work)
    if most_urgent(int(isinstance(result, FAILURES)), fabric):
        raise own_or_other(result)
    return result  # type: ignore[return-value]  # It is not a failure.


def once_all(products: Iterable[Path], work: Callable[[], object], fabric: Fabric) -> None:
    """Do, in the first process, work that ends with writing files, unless they are there."""
    together(lambda: all(path.exists() for path in products) or work(), fabric)


def require_same(output: Path, what: str, now: dict[str, Any], fabric: Fabric) -> None:
    """Write down what the run is made with, or refuse another one in its folder.

    Args:
        output: folder of the run.
        what: what is compared: name of the JSON file without its suffix.
        now: the values of this run.
        fabric: launched.

    Raises:
        UserError: the folder holds a run with other values.
    """
    path = output / f"{what}.json"
    now = json.loads(json.dumps(now))

    def compare() -> None:
        if not path.exists():
            write_json(path, now)
            return
        before = read_json(path)
        if before != now:
            other = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
            raise UserError(
                f"unsup-fg: {output} holds a run with other {what} ({listed(other)}); choose another --output"
            )

    together(compare, fabric)
