import csv
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from urllib.error import URLError

import pytest

from vos_shared.cli import main, run_cli
from vos_shared.datasets import davis2017
from vos_shared.errors import BadMask
from vos_shared.masks import read_mask, write_mask
from vos_shared.video import Video


def vos(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """Run the command in this process and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["vos", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def truth_of(davis: Path) -> Path:
    return davis / "Annotations" / "480p"


@pytest.mark.parametrize("prefix", ["", "osmn: "])
def test_errors_of_the_user_become_one_line_and_2(capsys: pytest.CaptureFixture[str], prefix: str) -> None:
    def fail() -> None:
        raise BadMask(f"{prefix}mask a.png is blue; make it green")

    assert run_cli(fail, prog="osmn") == 2
    assert capsys.readouterr().err == "osmn: mask a.png is blue; make it green\n"


def test_other_exit_codes() -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    assert run_cli(stop, prog="osmn") == 130
    assert run_cli(lambda: None) == 0
    assert run_cli(lambda: 1) == 1
    with pytest.raises(ZeroDivisionError):
        run_cli(lambda: 1 / 0)


def test_what_the_system_refuses_becomes_one_line_and_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    for work, says in (
        (lambda: (tmp_path / "none").read_text(), f"{tmp_path / 'none'}: No such file or directory"),
        (lambda: (tmp_path / "file" / "below").touch(), f"{tmp_path / 'file' / 'below'}: Not a directory"),
        (lambda: (tmp_path / "folder").write_text(""), f"{tmp_path / 'folder'}: Is a directory"),
        (lambda: (tmp_path / "file").replace(tmp_path / "folder"), f"{tmp_path / 'folder'}: Is a directory"),
    ):
        assert run_cli(work, prog="osmn") == 2
        assert capsys.readouterr().err == f"osmn: {says}\n"

    def fail() -> None:
        raise ConnectionError("no matter of files")

    with pytest.raises(ConnectionError):
        run_cli(fail)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no disk here that is always full")
def test_a_download_without_connection_becomes_one_line_and_2(capsys: pytest.CaptureFixture[str]) -> None:
    def download() -> None:
        raise URLError("Name or service not known")

    assert run_cli(download, prog="osmn") == 2
    assert capsys.readouterr().err.startswith("osmn: a download failed (Name or service not known); check the")


def test_a_full_disk_becomes_one_line_and_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(lambda: Path("/dev/full").write_text("more"), prog="osmn") == 2
    assert capsys.readouterr().err == "osmn: No space left on device\n"


@pytest.mark.parametrize("lines", [1, 100_000])
def test_nobody_reads_the_output_any_more(lines: int) -> None:
    """As in ``vos doctor demo | head -1``; Python notices the closed pipe while printing, or at exit."""
    code = f"from vos_shared.cli import run_cli; raise SystemExit(run_cli(lambda: print('line\\n' * {lines})))"
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        done = subprocess.run([sys.executable, "-c", code], stdout=pipe, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (141, "")


def test_ctrl_c_ends_with_130_and_no_traceback() -> None:
    script = """
        import sys, time
        from vos_shared.cli import run_cli
        def work():
            print("now", flush=True)
            time.sleep(60)
        sys.exit(run_cli(work, prog="osmn"))
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "now\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
    assert process.returncode == 130
    assert errors == "osmn: stopped; what is finished stays\n"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from vos_shared.cli import main; sys.argv = ['vos', '--help']\n"
        "try: main()\n"
        "except SystemExit: sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'av', 'scipy')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert {"evaluate", "demo-data", "overlay", "doctor"} <= set(done.stdout.split())


def test_the_truth_scores_one(
    davis: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ("--json", tmp_path / "s.json", "--csv", tmp_path / "s.csv")
    words = ("--dataset", "davis2017", "--root", davis, "--split", "val", "--results", truth_of(davis), *files)
    assert vos(monkeypatch, "evaluate", *words, "--workers", 1) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].split()[:3] == ["davis2017", "J&F-Mean", "J-Mean"]
    assert [line.split()[0] for line in table[2:]] == ["cat_1", "cat_2", "dog_1", "mean"]
    assert table[-1].split()[1:3] == ["100.0", "100.0"]
    scores = json.loads((tmp_path / "s.json").read_text())
    assert scores["summary"]["J&F-Mean"] == 1
    assert scores["objects"]["cat_2"] == {"J": 1, "F": 1}
    with (tmp_path / "s.csv").open() as file:
        assert len(list(csv.reader(file))) >= 4


def test_scores_go_into_folders_that_are_made(davis: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = ("--json", tmp_path / "new" / "a" / "s.json", "--csv", tmp_path / "new" / "b" / "s.csv")
    assert vos(monkeypatch, "evaluate", "--root", davis, "--results", truth_of(davis), *files) == 0
    assert json.loads((tmp_path / "new" / "a" / "s.json").read_text())["dataset"] == "davis2017"
    assert (tmp_path / "new" / "b" / "s.csv").read_text().startswith("name,J&F-Mean,")


def test_evaluating_does_not_load_torch(davis: Path) -> None:
    code = (
        "import sys; from vos_shared.cli import main\n"
        f"sys.argv = ['vos', 'evaluate', '--root', {str(davis)!r}, '--results', {str(truth_of(davis))!r}]\n"
        "try: main()\n"
        "except SystemExit as end: sys.exit(end.code or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_evaluating_incomplete_results_names_every_frame(
    davis: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    assert vos(monkeypatch, "evaluate", "--root", davis, "--results", tmp_path / "out") == 2
    assert "cat: 00001-00003; dog: 00001" in capsys.readouterr().err


def test_demo_data_can_be_read_and_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("demo-data", tmp_path / "demo", "--clips", 2, "--frames", 3, "--size", 48, 64)
    assert vos(monkeypatch, *words) == 0
    sequences = davis2017(tmp_path / "demo")
    assert [len(sequence.frame_names) for sequence in sequences] == [3, 3]
    assert sequences[0].video.size == (48, 64)
    assert vos(monkeypatch, *words) == 2
    assert "choose another folder" in capsys.readouterr().err


def test_overlay_of_a_data_set_and_of_frames(
    davis: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert vos(monkeypatch, "overlay", davis, "--output", tmp_path / "films") == 0
    assert {path.name: len(Video.open(path)) for path in (tmp_path / "films").iterdir()} == {"cat.mp4": 5, "dog.mp4": 3}
    frames = davis / "JPEGImages" / "480p" / "dog"
    words = ("overlay", frames, "--masks", truth_of(davis), "--output", tmp_path / "new" / "dog.mp4", "--fps", 5)
    assert vos(monkeypatch, *words) == 0
    assert Video.open(tmp_path / "new" / "dog.mp4").fps == 5
    assert vos(monkeypatch, "overlay", frames, "--output", tmp_path / "none.mp4") == 2
    assert "add --masks" in capsys.readouterr().err
    (truth_of(davis) / "dog" / "00001.png").unlink()
    assert vos(monkeypatch, *words) == 2
    assert "lacks 1 mask: dog: 00001" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "number", "says"),
    [
        ("--fps", "-3", "--fps is -3; give 0.001 to 1,000,000 frames a second"),
        ("--fps", "0", "--fps is 0;"),
        ("--fps", "nan", "--fps is nan;"),
        ("--fps", "inf", "--fps is inf;"),
        ("--alpha", "3", "--alpha is 3; give 0 to 1"),
        ("--alpha", "-0.1", "--alpha is -0.1;"),
        ("--alpha", "nan", "--alpha is nan;"),
    ],
)
def test_numbers_that_make_no_overlay(
    davis: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    option: str,
    number: str,
    says: str,
) -> None:
    assert vos(monkeypatch, "overlay", davis, "--output", tmp_path / "films", option, number) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "films").exists()


def test_a_seed_below_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert vos(monkeypatch, "demo-data", tmp_path / "demo", "--seed", -1) == 2
    assert capsys.readouterr().err == "vos: --seed is -1; give 0 or more\n"


def test_doctors_exit_code_tells_the_finding(
    davis: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert vos(monkeypatch, "doctor", davis) == 0
    assert "no problems found" in capsys.readouterr().out
    assert vos(monkeypatch, "doctor", truth_of(davis), "--root", davis) == 0
    write_mask(truth_of(davis) / "cat" / "00007.png", read_mask(truth_of(davis) / "cat" / "00000.png"))
    assert vos(monkeypatch, "doctor", davis) == 1
    assert "lacks frames 00007 of cat, which have masks" in capsys.readouterr().out
    assert vos(monkeypatch, "doctor", tmp_path / "nowhere") == 2
    assert capsys.readouterr().err == f"vos: no such folder: {tmp_path / 'nowhere'}\n"
