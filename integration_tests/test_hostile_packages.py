"""Packages that hang, end the process, or return nonsense: only their own row fails."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from comparison import processes
from comparison.events import Failed

Compare = Callable[..., subprocess.CompletedProcess[str]]

STRANGE = """
import os, time
import stranger
from vos_shared.method import Method, ModelInfo, Supervision

class Bad(stranger.Copy):
    def __init__(self, how):
        super().__init__()
        self.how = how
        if how == "nothing known":
            self.info = ModelInfo(None, None, None)
        if how == "text":
            self.info = ModelInfo("many", "w", True)
    def step(self, frame, prompt=None, *, soft_masks=False):
        if self.how == "forks":
            child = os.fork()
            if not child:
                time.sleep(1000)
            print("child", child, flush=True)
            os._exit(3)
        if self.how == "long":
            raise RuntimeError("\\x1b[2J" + "x" * 5_000_000)
        if self.how == "moves":
            os.chdir("/")
        return super().step(frame, prompt)

def load(weights, device, precision, **options): return Bad(**options)

HOWS = ("forks", "nothing known", "text", "long", "moves")
BAD = Method("bad", "Fails", "", Supervision.FIRST_FRAME, "strange:load", {how: {"how": how} for how in HOWS})
"""


@pytest.fixture
def rows(compare: Compare, environment: dict[str, str], davis_root: Path, tmp_path: Path) -> Callable[..., Any]:
    """Run methods and return their metrics; more packages can be passed as source text."""

    def run(*methods: str, code: int = 1, patience: str = "200", **packages: str) -> dict[str, dict[str, Any]]:
        site = Path(environment["PYTHONPATH"])
        entries = "".join(f"{name} = {name}:BAD\n" for name in packages)
        for name, source in packages.items():
            (site / f"{name}.py").write_text(source)
        with (site / "stranger-0.1.dist-info" / "entry_points.txt").open("a") as file:
            file.write(entries)
        asked = ("--methods", *methods) if methods else ()
        data = ("--dataset", "davis2017", "--root", davis_root, "--sequences", "still")
        done = compare(*data, *asked, "--patience", patience)
        assert done.returncode == code, done.stderr
        assert max(map(len, done.stdout.splitlines())) < 1000
        assert done.stdout.replace("\n", "").isprintable()
        return {row["method"]: row for row in json.loads((tmp_path / "out" / "metrics.json").read_text())["rows"]}

    return run


HANGING = """
import os, signal, time
from pathlib import Path
from comparison.processes import detach

def hang(how, connection):
    detach(Path(__file__).with_suffix(".log"))
    if how == "stopped":
        os.kill(os.getpid(), signal.SIGSTOP)
    if how == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True: pass
    time.sleep(1000)
"""


@pytest.mark.parametrize("how", ["asleep", "deaf", "stopped"])
def test_a_process_without_progress_is_ended(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"hanging_{how}.py").write_text(HANGING)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(processes, "GRACE_SECONDS", 0.2)
    target = importlib.import_module(f"hanging_{how}").hang
    (event,) = processes.events_of(target, (how,), "hangs", 3)
    assert isinstance(event, Failed)
    assert "without progress" in event.reason
    assert not multiprocessing.active_children()


def test_the_children_of_a_dead_worker_end_with_it(rows: Callable[..., Any], tmp_path: Path) -> None:
    assert "exit code 3" in rows("forks", strange=STRANGE)["forks"]["failure"]
    log = (tmp_path / "out" / "logs" / "forks.log").read_text().split()
    child = Path("/proc", log[log.index("child") + 1], "stat")
    assert not child.exists() or child.read_text().rpartition(")")[2].split()[0] == "Z"


def test_nonsense_is_the_failure_of_its_row(rows: Callable[..., Any], tmp_path: Path) -> None:
    found = rows("nothing known", "text", "long", "moves", "copy", strange=STRANGE)
    assert "parameters is None" in found["nothing known"]["failure"]
    assert "parameters is 'many'" in found["text"]["failure"]
    assert "?[2Jxxx" in found["long"]["failure"]
    assert found["moves"]["failure"] is None
    assert found["copy"]["failure"] is None
    assert "SystemExit" not in (tmp_path / "out" / "logs" / "copy.log").read_text()


def test_imports_that_end_or_block_are_rows(rows: Callable[..., Any]) -> None:
    bad = {
        "exits": "import sys; sys.exit('bye')",
        "vanishes": "import os; os._exit(0)",
        "segfaults": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
        "waits": "import time; time.sleep(1000)",
        "untyped": "from vos_shared.method import Method; BAD = Method(1, 2, 3, 4, 5)",
    }
    found = rows("copy", "middle", *bad, patience="25", **bad)
    assert "SystemExit: bye" in found["exits"]["failure"]
    assert "exit code 0" in found["vanishes"]["failure"]
    assert "SIGSEGV" in found["segfaults"]["failure"]
    assert "without progress" in found["waits"]["failure"]
    assert "must be text" in found["untyped"]["failure"]
    assert found["copy"]["failure"] is None
    assert found["middle"]["failure"] is None


def test_a_damaged_record_is_computed_anew(rows: Callable[..., Any], tmp_path: Path) -> None:
    before = rows("copy", code=0)["copy"]["scores"]
    record = tmp_path / "out" / "masks" / "copy" / ".manifest" / "still.json"
    content = json.loads(record.read_text())
    content["extra"]["model"] = {"parameters": None}
    record.write_text(json.dumps(content))
    assert rows("copy", code=0)["copy"]["scores"] == before
    log = (tmp_path / "out" / "logs" / "copy.log").read_text()
    assert log.count("step") == 2 * 6
