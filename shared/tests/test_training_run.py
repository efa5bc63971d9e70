"""A run in a folder: killed, resumed, stopped, refused. The tests of the methods cover only their step."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from vos_shared.checkpoints import safetensors_io
from vos_shared.checkpoints.torch_pickle import load_torch
from vos_shared.errors import BadVideo, BadWeights, UserError
from vos_shared.runtime.distributed import fabric
from vos_shared.training.agreement import only_run
from vos_shared.training.arguments import RunOptions
from vos_shared.training.batches import EpochOrder, step_keys
from vos_shared.training.resume import ResumeFile
from vos_shared.training.run import TrainingRun
from vos_shared.training.snapshots import BestSnapshots

pytest.importorskip("lightning_fabric")
Hook = Callable[[TrainingRun], object]


class Samples(Dataset[Tensor]):
    """Pairs of numbers by (step, slot); one of them may raise an error."""

    def __init__(self, broken: tuple[int, int] | None = None) -> None:
        self.broken = broken

    def __getitem__(self, key: tuple[int, int]) -> Tensor:
        if key == self.broken:
            raise BadVideo("frame 7 cannot be read")
        return torch.tensor([float(key[0]), float(key[1])])


def train(
    folder: Path,
    *,
    steps: int = 6,
    samples: Samples | None = None,
    before: Hook = lambda run: None,
    after: Hook = lambda run: None,
    rate: float = 0.01,
    workers: int = 0,
    minutes: float = 0,
    resume: bool = False,
    **more: Any,
) -> Path | None:
    """A network with dropout and momentum; `before` and `after` are called around each step."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.5), nn.Linear(8, 1))
    lightning = fabric("cpu")
    model, optimiser = lightning.setup(network, torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9))

    def write(path: Path) -> None:
        safetensors_io.save(path, network.state_dict(), {"step": str(run.step)})

    options = RunOptions(folder, resume, minutes, workers)
    with TrainingRun(
        options, lightning, network, optimiser, steps=steps, write_weights=write, log_steps=2, **more
    ) as run:
        for batch in run.batches(samples or Samples(), 2):
            before(run)
            loss = model(batch).square().mean()
            optimiser.zero_grad()
            lightning.backward(loss)
            optimiser.step()
            run.finished({"train/loss": loss}, {"train/lr": rate}, epoch=run.step // 3)
            after(run)
    return run.result


def weights(folder: Path) -> dict[str, Tensor]:
    return safetensors_io.load(folder / "last.safetensors")[0]


def logged(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def assert_same(folder: Path, other: Path) -> None:
    found, expected = weights(folder), weights(other)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert logged(folder) == logged(other)


def step_of(folder: Path) -> int:
    step: int = load_torch(folder / "resume.pt")["step"]
    return step


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    assert train(folder) == folder / "last.safetensors"
    return folder


def test_a_run_logs_means_and_numbers(whole: Path) -> None:
    assert [(line["step"], line["epoch"], line["train/lr"]) for line in logged(whole)] == [
        (2, 0, 0.01), (4, 1, 0.01), (6, 1, 0.01)
    ]  # fmt: skip
    assert any((whole / "tensorboard").iterdir())


def test_memory_that_a_step_frees_is_kept_to_the_end_of_the_run(tmp_path: Path, memory_events: list[object]) -> None:
    train(tmp_path, steps=2, after=lambda run: memory_events.append(run.step))
    assert memory_events == ["cpu", 1, 2, "given back"]


@pytest.mark.parametrize("stop", [0, 1, 4, 5])
def test_a_broken_run_goes_on_as_if_nothing_had_been(whole: Path, tmp_path: Path, stop: int) -> None:
    """Between two logs, while losses are summed, with dropout and momentum."""

    def fail(run: TrainingRun) -> None:
        if run.step == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, before=fail)
    torch.rand(3)  # Must not affect the run.
    assert train(tmp_path, resume=True)
    assert_same(tmp_path, whole)


def test_a_run_that_is_asked_to_stop_finishes_its_step_and_goes_on_later(whole: Path, tmp_path: Path) -> None:
    def ask(run: TrainingRun) -> None:
        if run.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    assert train(tmp_path, before=ask, minutes=60) is None
    assert step_of(tmp_path) == 3
    assert train(tmp_path, resume=True)
    assert_same(tmp_path, whole)


def test_a_finished_run_can_be_made_longer_or_has_nothing_left_to_do(whole: Path, tmp_path: Path) -> None:
    train(tmp_path, steps=3)
    train(tmp_path, resume=True)
    assert_same(tmp_path, whole)
    for steps in (6, 4):
        train(tmp_path, steps=steps, resume=True)
        assert_same(tmp_path, whole)


@pytest.mark.parametrize("minutes", [0, 60])
@pytest.mark.parametrize("broken", [(0, 1), (3, 0)])
def test_what_was_computed_before_a_bad_sample_is_not_lost(
    whole: Path, tmp_path: Path, broken: tuple[int, int], minutes: float
) -> None:
    with pytest.raises(BadVideo, match="frame 7"):
        train(tmp_path, samples=Samples(broken), minutes=minutes)
    assert step_of(tmp_path) == broken[0]
    train(tmp_path, resume=True)
    assert_same(tmp_path, whole)


def test_losses_that_are_not_finite_end_the_run_and_are_not_saved(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"at step \d; start another run: lower the learning rate"):
        train(tmp_path, rate=1e30)
    assert step_of(tmp_path) <= 1
    assert not (tmp_path / "last.safetensors").exists() or all(
        bool(value.isfinite().all()) for value in weights(tmp_path).values()
    )


def test_weights_that_are_not_finite_never_replace_good_ones(tmp_path: Path) -> None:
    """The loss shows it only one step later."""

    def spoil(run: TrainingRun) -> None:
        if run.step == 3:
            next(run.network.parameters()).data.fill_(torch.nan)

    with pytest.raises(UserError, match="weights contain NaN or infinity at step 3"):
        train(tmp_path, after=spoil)
    assert step_of(tmp_path) == 2
    assert safetensors_io.load(tmp_path / "last.safetensors")[1]["step"] == "2"


def test_a_reader_that_is_killed_is_one_line_and_the_run_can_go_on(whole: Path, tmp_path: Path) -> None:
    def kill(run: TrainingRun) -> None:
        if run.step == 1:
            for reader in multiprocessing.active_children():
                reader.kill()

    with pytest.raises(UserError, match="a process that reads data was killed"):
        train(tmp_path, workers=1, before=kill)
    train(tmp_path, resume=True)
    assert_same(tmp_path, whole)


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_log_that_cannot_be_written_ends_the_run_after_saving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter.add_scalar", full)
    with pytest.raises(OSError, match="No space left"):
        train(tmp_path, minutes=60)
    assert step_of(tmp_path) == 2


def test_a_disk_that_is_full_keeps_the_last_state_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = ResumeFile.save
    monkeypatch.setattr(ResumeFile, "save", lambda file, state: full() if state["step"] else save(file, state))
    with pytest.raises(OSError, match="No space left"):
        train(tmp_path)
    assert step_of(tmp_path) == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_pytorchs_words_for_a_full_disk_never_appear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch itself raises a RuntimeError of thirty lines."""
    monkeypatch.setattr("vos_shared.checkpoints.torch_pickle.atomic_path", lambda path: open_full())
    with pytest.raises(OSError, match="No space left"):
        ResumeFile(tmp_path / "resume.pt").save({"step": 1, "weights": torch.zeros(10000)})


def test_a_disk_that_fills_up_while_pytorch_writes_is_an_error_of_the_file(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # Further writes fail, as on a full disk.
    try:
        with pytest.raises(OSError, match="File too large") as failed:
            ResumeFile(tmp_path / "resume.pt").save({"step": 1, "weights": torch.zeros(1_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert failed.value.filename == str(tmp_path / "resume.pt")
    assert not list(tmp_path.iterdir())


class open_full:
    def __enter__(self) -> Path:
        return Path("/dev/full")

    def __exit__(self, *_: object) -> None:
        return None


def test_a_run_goes_on_as_it_began(whole: Path) -> None:
    with pytest.raises(UserError, match="written with batch None, not 3"):
        train(whole, resume=True, must_match={"batch": 3})


def test_what_a_run_has_written_is_not_replaced(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"already holds a run \(resume\.pt, last\.safetensors, log\.jsonl\)"):
        train(whole)
    with only_run(tmp_path, fabric("cpu")), pytest.raises(UserError, match="another run uses"):
        train(tmp_path)
    (tmp_path / ".0123456789abcdef.partial").write_bytes(b"132 MB")  # Left by a run that was killed while it saved.
    train(tmp_path, steps=1)
    assert not list(tmp_path.glob(".*.partial"))


Damage = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: state.update(step=-3),
        lambda state: state.update(step=10**12),
        lambda state: state.update(step="three"),
        lambda state: state.update(step=True),
        lambda state: state.update(network={}),
        lambda state: state["network"].popitem(),
        lambda state: state["network"].update({"0.weight": torch.zeros(8, 2, dtype=torch.int8)}),
        lambda state: state["network"].update({"0.weight": torch.zeros(3)}),
        lambda state: state.update(optimiser=[1]),
        lambda state: state.pop("losses"),
        lambda state: state.update(run="text"),
        lambda state: state["network"]["0.weight"].fill_(torch.nan),
        lambda state: state["optimiser"]["state"][0].popitem(),
        lambda state: state["optimiser"]["state"][0].update(momentum_buffer=torch.zeros(3)),
        lambda state: state.update(losses=[-1, {}]),
        lambda state: state.update(losses=[1, {"train/loss": torch.zeros(3)}]),
        lambda state: state.pop("digest"),
    ],
)
def test_a_damaged_resume_file_is_refused_and_nothing_is_written(whole: Path, tmp_path: Path, damage: Damage) -> None:
    state = load_torch(whole / "resume.pt")
    damage(state)
    torch.save(state, tmp_path / "resume.pt")
    with pytest.raises(BadWeights, match=r"resume\.pt") as refused:
        train(tmp_path, resume=True)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "last.safetensors").exists()


def test_a_log_with_damaged_lines_does_not_stop_a_resume(whole: Path, tmp_path: Path) -> None:
    train(tmp_path, steps=3)
    with (tmp_path / "log.jsonl").open("ab") as lines:
        lines.write(b"\xff\xfe\n" + b"[" * 100_000 + b"\n" + b'{"step": ' + b"9" * 400 + b"}\n" + b'{"step": 9, "lo')
    train(tmp_path, resume=True)
    assert_same(tmp_path, whole)


def test_the_state_of_others_is_kept(tmp_path: Path) -> None:
    best = BestSnapshots(tmp_path / "best")

    def offer(run: TrainingRun) -> None:
        best.offer(run.step, f"{run.step}.pt", Path.touch)
        if run.step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, after=offer, extra={"best": best})
    assert [score for _, score in best.entries()] == [2, 3, 4]
    train(tmp_path, resume=True, steps=3, extra={"best": best})
    assert [score for _, score in best.entries()] == [2, 3], "what the resume file does not know is made again"


def test_batches_depend_on_step_and_slot_and_are_shared_by_ranks() -> None:
    whole = list(step_keys(0, 3, 4, 0))
    assert list(step_keys(1, 3, 4, 0)) == whole[1:]
    ranks = [list(step_keys(0, 3, 2, rank)) for rank in range(2)]
    assert [first + second for first, second in zip(*ranks, strict=True)] == whole
    order = EpochOrder(50, 3)
    epochs = [[order(epoch, place) for place in range(50)] for epoch in (0, 1, 0)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(50))
    assert epochs[0] == epochs[2] != epochs[1]


def test_the_loss_scale_of_half_precision_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning_fabric.plugins import Precision

    found: list[dict[str, float]] = []
    monkeypatch.setattr(Precision, "state_dict", lambda _: {"scale": 1024.0})
    monkeypatch.setattr(Precision, "load_state_dict", lambda _, state: found.append(state))
    train(tmp_path, steps=1)
    train(tmp_path, steps=2, resume=True)
    assert found == [{"scale": 1024.0}]


def test_the_example_of_the_readme_trains_and_resumes(tmp_path: Path) -> None:
    example = Path(__file__).parents[1] / "examples" / "training_loop.py"
    body = example.read_text().partition('"""\n\n')[2]
    assert len(body.splitlines()) <= 40
    scope: dict[str, Any] = {"__name__": "example"}
    exec(compile(example.read_text(), str(example), "exec"), scope)
    whole = scope["train"](RunOptions(tmp_path / "whole"), steps=4)
    scope["train"](RunOptions(tmp_path / "parts"), steps=2)
    parts = scope["train"](RunOptions(tmp_path / "parts", resume=True), steps=4)
    expected, found = (safetensors_io.load(path)[0] for path in (whole, parts))
    assert all(torch.equal(found[name], value) for name, value in expected.items())
