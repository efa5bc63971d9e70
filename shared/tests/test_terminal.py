"""Control characters in names are never sent to the terminal."""

from __future__ import annotations

import dataclasses
import re
import shutil
import sys
from pathlib import Path

import pytest
from tqdm import tqdm

from vos_shared.cli import main, run_cli, run_commands
from vos_shared.errors import UserError
from vos_shared.tables import text_table
from vos_shared.terminal import escaped

EVIL = "a\x1b[31mred\x07\r\n\u202eb\udcff"


def test_what_is_not_printable_is_written_out() -> None:
    assert escaped(EVIL) == r"a\x1b[31mred\x07\r\n\u202eb\udcff"
    assert escaped("Zoë − 狗 .png") == "Zoë − 狗 .png"


@pytest.mark.parametrize("error", [UserError(f"no {EVIL}"), OSError(13, "Permission denied", EVIL)])
def test_errors_are_one_line_of_printable_text(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise error

    assert run_cli(command, prog="vos") == 2
    said = capsys.readouterr().err
    assert said.endswith("\n")
    assert said[:-1].isprintable()


def test_tables_keep_their_lines() -> None:
    assert text_table(("name", "n"), [(EVIL, "1")]).count("\n") == 2


def test_doctor(
    davis: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "cat\x1b[2J"
    results = tmp_path / "results"
    shutil.copytree(davis / "Annotations/480p/cat", results / name)
    (results / name / "00001.png").write_bytes(b"")
    monkeypatch.setattr(sys, "argv", ["vos", "doctor", str(results)])
    with pytest.raises(SystemExit):
        main()
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert said.count(r"cat\x1b[2J") == 2


@dataclasses.dataclass
class Printing:
    """A command that prints a name in all possible ways."""

    def run(self) -> None:
        """Print it."""
        print(EVIL)
        print(f"note: {EVIL}", file=sys.stderr)
        with tqdm(total=2, desc=EVIL) as bar, tqdm(total=2) as lower:
            bar.set_postfix_str(EVIL)
            lower.refresh()


def test_nothing_that_a_command_prints_commands_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["x", "print"])
    before = sys.stdout, sys.stderr
    with pytest.raises(SystemExit) as caught:
        run_commands("x", "A program.", {"print": Printing, "other": Printing})
    assert caught.value.code == 0
    assert (sys.stdout, sys.stderr) == before
    said = capsys.readouterr()
    assert said.out == "a\\x1b[31mred\\x07\r\n\\u202eb\\udcff\n"
    assert "\x1b[A" in said.err, "the upper bar is found again"
    assert {c for c in said.err if not c.isprintable()} <= set("\r\n\x1b")
    assert set(re.findall("\x1b..", said.err)) == {"\x1b[A"}


def test_names_of_outputs_are_escaped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "a\x1b[31mb"
    monkeypatch.setattr(sys, "argv", ["vos", "demo-data", str(output), "--clips", "1", "--frames", "2"])
    with pytest.raises(SystemExit):
        main()
    assert r"a\x1b[31mb" in capsys.readouterr().out
