"""The main job: methods run in separate processes, are scored and timed, and are never computed twice."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from comparison import inputs
from comparison.options import Options
from vos_shared.datasets.synthetic import write_davis_tree
from vos_shared.errors import UserError
from vos_shared.masks import read_mask

ROOT = Path(__file__).resolve().parent.parent
Compare = Callable[..., subprocess.CompletedProcess[str]]


def rows(output: Path) -> dict[str, dict[str, Any]]:
    return {row["method"]: row for row in json.loads((output / "metrics.json").read_text())["rows"]}


def test_help_is_instant() -> None:
    code = (
        "import sys; sys.path.insert(0, 'tools'); sys.argv = ['compare.py', '--help']\n"
        "from comparison.cli import main\n"
        "try: main()\n"
        "except SystemExit: sys.exit('torch' in sys.modules or 'scipy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False).returncode == 0


def test_a_strangers_methods_are_scored(compare: Compare, davis_root: Path, tmp_path: Path) -> None:
    data = ("--dataset", "davis2017", "--root", davis_root)
    done = compare(*data, "--methods", "copy", "middle", "--results", f"truth={davis_root / 'Annotations' / '480p'}")
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "out" / "report.html") in done.stdout
    found = rows(tmp_path / "out")
    assert found["truth"]["scores"]["davis2017"]["summary"]["J&F-Mean"] == 1
    copied = found["copy"]["scores"]
    assert copied["davis2017"]["items"]["still_2"]["J&F-Mean"] == 1, "a repeated mask is right where nothing moves"
    assert copied["davis2017"]["items"]["moving_1"]["J-Mean"] < 1
    low, high = copied["davis2016"]["intervals"]["J-Mean"]
    assert low < copied["davis2016"]["summary"]["J-Mean"] < high == 1
    assert set(found["middle"]["scores"]) == {"davis2016"}, "without a first mask there are no object ids to compare"
    assert found["middle"]["runs"]["moving"]["frames"] == 6
    assert found["middle"]["ms_per_frame"] > 0
    mask = read_mask(tmp_path / "out" / "masks" / "copy" / "moving" / "00005.png")
    assert (mask == read_mask(davis_root / "Annotations" / "480p" / "moving" / "00000.png")).all()
    with (tmp_path / "out" / "metrics.csv").open() as file:
        lines = [line for line in csv.DictReader(file) if line["method"] == "copy" and line["item"] == "all"]
    assert {line["protocol"]: float(line["J-Mean"]) for line in lines} == {
        name: scored["summary"]["J-Mean"] for name, scored in copied.items()
    }


def test_a_method_that_fails_is_a_row_that_says_why(compare: Compare, davis_root: Path, tmp_path: Path) -> None:
    fatal = {
        "excepts": "RuntimeError: no more <b>ideas</b>",
        "crashes": "SIGSEGV",
        "killed": "out of memory",
        "starves": "ran out of memory",
        "shrinks": "its masks cannot be used",
        "unimportable": "No module named 'nowhere'",
    }
    done = compare("--dataset", "davis2017", "--root", davis_root, "--methods", *fatal, "copy")
    assert done.returncode == 1, done.stderr
    found = rows(tmp_path / "out")
    for name, reason in fatal.items():
        assert reason in found[name]["failure"]
        assert "second line" not in found[name]["failure"]
        assert f"{name} has no result" in done.stdout
    assert found["copy"]["failure"] is None
    assert found["copy"]["scores"]["davis2016"]["items"]["still"]["J-Mean"] == 1
    assert "no more &lt;b&gt;ideas&lt;/b&gt;" in (tmp_path / "out" / "report.html").read_text()


def test_what_is_finished_is_not_computed_again(compare: Compare, davis_root: Path, tmp_path: Path) -> None:
    data = ("--dataset", "davis2017", "--root", davis_root, "--methods", "copy")
    log = tmp_path / "out" / "logs" / "copy.log"
    assert compare(*data, "--sequences", "still").returncode == 0
    first = rows(tmp_path / "out")["copy"]["runs"]["still"]
    assert log.read_text().count("step") == 6
    assert compare(*data).returncode == 0
    assert log.read_text().count("step") == 12, "only the new sequence is computed"
    assert rows(tmp_path / "out")["copy"]["runs"]["still"] == first, "its time is remembered"
    truth = davis_root / "Annotations" / "480p" / "moving"
    for mask in (tmp_path / "out" / "masks" / "copy" / "moving").iterdir():
        shutil.copy(truth / mask.name, mask)
    assert compare(*data).returncode == 1
    assert "were changed after they were written" in rows(tmp_path / "out")["copy"]["failure"]
    shutil.rmtree(tmp_path / "out" / "masks" / "copy" / "moving")
    compare(*data, "--seed", "1")
    assert log.read_text().count("step") == 24, "other settings may give other masks"


def test_other_clips_in_the_place_of_the_built_in_ones(compare: Compare, tmp_path: Path) -> None:
    write_davis_tree(tmp_path / "out" / "demo", clips=1, frames=4, size=(48, 64))
    done = compare("--methods", "copy")
    assert done.returncode == 2
    assert "holds other clips than the built-in ones" in done.stderr


def test_built_in_clips_that_another_run_writes_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def both(root: Path, **settings: Any) -> None:
        write_davis_tree(root, **settings)
        raise UserError("written by another process")

    monkeypatch.setattr(inputs, "write_new_davis_tree", both)
    monkeypatch.setattr(inputs, "CLIP_SIZE", (48, 64))
    assert len(inputs.open_inputs(Options(output=tmp_path)).sequences) == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_run_loses_its_running_sequence_only(
    number: signal.Signals, command: list[str], environment: dict[str, str], davis_root: Path, tmp_path: Path
) -> None:
    line = [*command, "--dataset", "davis2017", "--root", str(davis_root), "--methods", "slow"]
    log, masks = tmp_path / "out" / "logs" / "slow.log", tmp_path / "out" / "masks" / "slow"
    with subprocess.Popen(line, env=environment, stderr=subprocess.DEVNULL, start_new_session=True) as running:
        wait_until(lambda: log.is_file() and log.read_text().count("step") >= 8)
        running.send_signal(number)
    worker = int(log.read_text().split()[3])
    wait_until(lambda: not is_alive(worker))
    assert running.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[number]
    assert sorted(path.name for path in masks.iterdir() if not path.name.startswith(".")) == ["still"]
    steps = log.read_text().count("step")
    assert subprocess.run(line, env=environment, capture_output=True, check=False).returncode == 0
    assert log.read_text().count("step") == steps + 6, "the sequence that was running, and no other, is computed again"


def wait_until(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{process}/stat")
    return not (state.is_file() and state.read_text().rpartition(")")[2].split()[0] == "Z")


def test_a_video_without_truth(compare: Compare, davis_root: Path, tmp_path: Path) -> None:
    video = davis_root / "JPEGImages" / "480p" / "moving"
    done = compare("--video", video, "--methods", "copy", "middle")
    assert done.returncode == 1
    assert "copy has no result: it must be told the objects in the first frame: give --prompt" in done.stdout
    done = compare("--video", video, "--methods", "copy", "middle", "--prompt", mask_of(davis_root, "moving", 0))
    assert done.returncode == 0, done.stderr
    found = rows(tmp_path / "out")
    assert found["copy"]["scores"] == {}
    assert found["copy"]["ms_per_frame"] > 0
    assert len(list((tmp_path / "out" / "masks" / "copy" / "moving").glob("*.png"))) == 6
    report = (tmp_path / "out" / "report.html").read_text()
    assert "Ground truth" not in report.partition('id="data"')[0]
    assert "data:image/jpeg" in report
    assert "No scores: a video has no true masks." in report


def test_masks_of_another_size_are_not_shown(compare: Compare, davis_root: Path, tmp_path: Path) -> None:
    video, prompt = davis_root / "JPEGImages" / "480p" / "moving", mask_of(davis_root, "moving", 0)
    assert compare("--video", video, "--methods", "shrinks", "--prompt", prompt).returncode == 1
    assert "64 wide and 47 high" in rows(tmp_path / "out")["shrinks"]["failure"]


def test_a_split_of_first_masks_is_run_without_scores(compare: Compare, davis_root: Path, tmp_path: Path) -> None:
    for sequence in ("still", "moving"):
        for frame in range(1, 6):
            mask_of(davis_root, sequence, frame).unlink()
    done = compare("--dataset", "davis2017", "--root", davis_root, "--methods", "copy", "middle")
    assert done.returncode == 0, done.stderr
    why = "no sequence of val has masks of 3 frames or more"
    assert f"no scores: {why}\n" in done.stdout
    found = rows(tmp_path / "out")
    for name in ("copy", "middle"):
        assert found[name]["scores"] == {}
        assert found[name]["ms_per_frame"] > 0
        assert len(list((tmp_path / "out" / "masks" / name / "moving").glob("*.png"))) == 6
    report = (tmp_path / "out" / "report.html").read_text()
    assert f"No scores: {why}." in report
    assert 'id="table-davis2017"' not in report
    assert "data:image/jpeg" in report


def mask_of(root: Path, sequence: str, frame: int) -> Path:
    return root / "Annotations" / "480p" / sequence / f"{frame:05d}.png"


def test_published_masks_get_their_published_scores(compare: Compare, tmp_path: Path) -> None:
    if "VOS_DATA" not in os.environ:
        pytest.skip("VOS_DATA is not set")
    data = Path(os.environ["VOS_DATA"])
    published = data / "published-results"
    official = json.loads((published / "official-scores.json").read_text())
    names = ("osvos", "stm")
    folders = [f"--results={name}={published / f'{name}-davis2017'}" for name in names]
    done = compare("--dataset", "davis2017", "--root", data / "davis2017-val-open", "--methods", "middle", *folders)
    assert done.returncode == 0, done.stderr
    found = rows(tmp_path / "out")
    for name in names:
        items = found[name]["scores"]["davis2017"]["items"]
        assert items.keys() == official[f"{name}-davis2017"].keys()
        for item, scores in official[f"{name}-davis2017"].items():
            assert items[item]["J-Mean"] == pytest.approx(scores["J"], abs=6e-5)
            assert items[item]["F-Mean"] == pytest.approx(scores["F"], abs=6e-5)
    assert (tmp_path / "out" / "report.html").stat().st_size < 15e6
