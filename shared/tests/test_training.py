import ast
import errno
import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import torch

from vos_shared.errors import BadVideo, BadWeights, MissingExtra, UserError
from vos_shared.runtime.seeding import seed_everything, seeded
from vos_shared.training.arguments import RunArguments
from vos_shared.training.batches import worker_items
from vos_shared.training.log import TrainingLog
from vos_shared.training.resume import ResumeFile
from vos_shared.training.snapshots import BestSnapshots
from vos_shared.training.stop import StopRequest


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002


def test_random_numbers_go_on_after_a_seeded_block() -> None:
    seed_everything(3)
    expected = [draw(), draw()]
    seed_everything(3)
    found = [draw()]
    with seeded(9):
        inside = draw()
    assert [*found, draw()] == expected
    with seeded(9):
        assert draw() == inside


@pytest.mark.parametrize("minutes", [float("nan"), float("inf"), -1.0])
def test_minutes_are_a_number(tmp_path: Path, minutes: float) -> None:
    with pytest.raises(UserError, match="--minutes is"):
        RunArguments(output=tmp_path, minutes=minutes).check()


def test_options_of_a_run_fit_its_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--workers is -1"):
        RunArguments(output=tmp_path, workers=-1).check()
    with pytest.raises(UserError, match="holds no run to resume"):
        RunArguments(output=tmp_path, resume=True).check()
    (tmp_path / "resume.pt").touch()
    RunArguments(output=tmp_path, resume=True).check()
    with pytest.raises(UserError, match="already holds a run"):
        RunArguments(output=tmp_path).check()
    with pytest.raises(UserError, match="is a file"):
        RunArguments(output=tmp_path / "resume.pt").check()


def test_readers_are_as_many_as_cores_at_most_four(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch warns of more processes than cores."""
    for cores, workers in ((1, 1), (2, 2), (64, 4)):
        monkeypatch.setattr("vos_shared.training.arguments.usable_cores", lambda count=cores: count)
        assert RunArguments(output=tmp_path).workers == workers


def test_a_kill_while_writing_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = ResumeFile(tmp_path / "resume.pt")
    file.save({"step": 1})

    def cut_short(state: object, file: BinaryIO) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", cut_short)
        with pytest.raises(KeyboardInterrupt):
            file.save({"step": 2})
    assert file.load() == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["resume.pt"]


def test_foreign_and_missing_resume_files(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(BadWeights, match="not the resume file"):
        ResumeFile(tmp_path / "list.pt").load()
    with pytest.raises(BadWeights, match=r"missing\.pt"):
        ResumeFile(tmp_path / "missing.pt").load()


def test_a_resumed_log_reads_as_if_never_stopped(tmp_path: Path) -> None:
    with TrainingLog(tmp_path) as log:
        for step in range(4):
            log.scalars(step, {"loss": step / 2}, epoch=0)
    with (tmp_path / "log.jsonl").open("a") as lines:
        lines.write('{"step": 4, "lo')  # Killed here.
    with TrainingLog(tmp_path, first_step=2) as log:
        log.scalars(2, {"loss": 9.0}, epoch=1)
        log.picture(2, "grid", np.zeros((4, 6, 3), np.uint8))
    found = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in found] == [(0, 0.0), (1, 0.5), (2, 9.0)]


def test_a_quiet_rank_writes_nothing(tmp_path: Path) -> None:
    with TrainingLog(tmp_path / "run", enabled=False) as log:
        log.scalars(0, {"loss": 1.0})
    assert not (tmp_path / "run").exists()


def test_all_ranks_find_out_that_tensorboard_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    for enabled in (True, False):
        with pytest.raises(MissingExtra, match="TensorBoard"):
            TrainingLog(tmp_path, enabled=enabled)


def offer(best: BestSnapshots, score: float) -> bool:
    return best.offer(score, f"{score}.pt", Path.touch)


def test_what_stops_the_log_is_told_where_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter.add_scalar", full)
    with TrainingLog(tmp_path) as log:
        log.check()
        log.scalars(1, {"loss": 0.5})
        log.picture(1, "train", np.zeros((4, 4, 3), np.uint8))
        with pytest.raises(OSError, match="No space left"):
            log.check()


def test_what_stops_a_reading_process_is_one_line() -> None:
    def failing(error: Exception) -> Iterator[int]:
        yield 1
        raise error

    def said(error: Exception) -> str:
        with pytest.raises(UserError) as told:
            list(worker_items(failing(error)))
        return str(told.value)

    text = "Caught X in DataLoader worker process 0.\nOriginal Traceback ..\n"
    assert "fewer --workers" in said(RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."))
    assert "fewer --workers" in said(ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"))
    assert said(PermissionError(f"{text}PermissionError: [Errno 13] Permission denied: 'a/b'\n")) == (
        "training: [Errno 13] Permission denied: 'a/b'"
    )
    assert said(BadVideo(f"{text}vos_shared.errors.BadVideo: frame 7 cannot be read")) == "frame 7 cannot be read"
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        list(worker_items(failing(RuntimeError("a mistake of ours"))))


def test_only_improvements_are_kept_and_of_them_the_last(tmp_path: Path) -> None:
    best = BestSnapshots(tmp_path / "best", keep=2)
    assert [offer(best, score) for score in (0.3, 0.2, 0.5, 0.5, 0.6)] == [True, False, True, False, True]
    assert not offer(best, float("nan"))
    assert best.entries() == [("0.5.pt", 0.5), ("0.6.pt", 0.6)]
    assert sorted(path.name for path in best.folder.glob("*.pt")) == ["0.5.pt", "0.6.pt"]


def test_improvements_after_the_resume_file_are_made_again(tmp_path: Path) -> None:
    best = BestSnapshots(tmp_path / "best")
    for score in (0.3, 0.6):
        offer(best, score)
    best.load_state_dict({"best": 0.3})
    assert best.best == 0.3
    assert offer(best, 0.6)
    best.load_state_dict({"best": None})
    assert best.best is None


def test_a_resumed_run_knows_the_best_score_whose_file_is_gone(tmp_path: Path) -> None:
    best = BestSnapshots(tmp_path / "best", keep=3)
    for score in (0.5, 0.6, 0.7, 0.8):
        offer(best, score)
    resumed = BestSnapshots(tmp_path / "best", keep=3)
    resumed.load_state_dict({"best": 0.5})
    assert resumed.entries() == []
    assert resumed.best == 0.5
    assert [offer(resumed, score) for score in (0.2, 0.5, 0.6)] == [False, False, True]
    assert resumed.best == 0.6


def test_the_first_signal_is_a_wish_the_second_a_command() -> None:
    with StopRequest() as stop:
        wishes = [stop.wanted]
        os.kill(os.getpid(), signal.SIGINT)
        wishes.append(stop.wanted)
        assert wishes == [False, True]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


RANK = """
import sys
from vos_shared.errors import BadVideo
from vos_shared.runtime.distributed import fabric, rank, world_size
from vos_shared.training.agreement import together

lightning = fabric("cpu", devices=world_size())
lightning.launch()

def read(bad):
    for number in range(4):
        if number == bad and rank() == 1:
            raise BadVideo("frame 2 is broken")
        yield number


def attempt(work):
    try:
        return work()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


found = []
found.append(attempt(lambda: together(lambda: 7, lightning)))
found.append(attempt(lambda: together(lambda: list(read(0)), lightning)))
found.append(attempt(lambda: together(lambda: open(f"/nowhere/{rank()}") if rank() else 7, lightning)))
open(sys.argv[1] + str(rank()), "w").write(repr(found))
"""


def test_processes_agree_to_go_on_or_to_leave(tmp_path: Path) -> None:
    pytest.importorskip("lightning_fabric")
    script = tmp_path / "rank.py"
    script.write_text(RANK)
    with socket.create_server(("127.0.0.1", 0)) as server:
        group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(server.getsockname()[1]), "WORLD_SIZE": "2"}
    ranks = [{**os.environ, **group, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    running = [subprocess.Popen([sys.executable, str(script), str(tmp_path / "said")], env=rank) for rank in ranks]
    assert [process.wait(timeout=600) for process in running] == [0, 0]
    elsewhere, own = "UserError: training: another process failed; it says why", "BadVideo: frame 2 is broken"
    for rank, said in enumerate((elsewhere, own)):
        system = "FileNotFoundError: [Errno 2] No such file or directory: '/nowhere/1'" if rank else elsewhere
        expected = [7, said, system]
        assert ast.literal_eval((tmp_path / f"said{rank}").read_text()) == expected
