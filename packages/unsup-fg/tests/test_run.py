"""The whole method in one run: what it leaves, and that it goes on after any interruption as if there had been none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from unsup_fg.agreement import consensus
from unsup_fg.checkpoints import load_weights
from unsup_fg.cli import main
from unsup_fg.pipeline import Outcome, Pipeline
from unsup_fg.pipeline_settings import PipelineSettings
from unsup_fg.selection import read_selection
from unsup_fg.students import load
from unsup_fg.time_left import TimeLeft
from vos_shared.errors import UserError
from vos_shared.runtime.distributed import fabric
from vos_shared.testing import RunCommand

SETTINGS = PipelineSettings(
    students=("basic-unet", "dilate-unet"),
    top=0.4,
    width={"basic-unet": 1 / 32, "dilate-unet": 1 / 32, "evalseg": 1 / 64},
    steps={"basic-unet": 4, "dilate-unet": 4, "evalseg": 2},
    batch={"basic-unet": 4, "dilate-unet": 4, "evalseg": 2},
    learning_rate={"basic-unet": 0.05, "dilate-unet": 0.05},
    norm_momentum=0.5,
    input_size=32,
    size=32,
    shards=2,
)


@pytest.fixture(scope="module")
def places(
    moving_disc: tuple[npt.NDArray[Any], npt.NDArray[Any]], tmp_path_factory: pytest.TempPathFactory
) -> list[Path]:
    """Two data sets: one with two videos of the same name as its neighbour's, one with bad ones beside a good one."""
    root = tmp_path_factory.mktemp("videos")
    frames = moving_disc[0]
    for name, part in {"a/disc": frames, "b/disc": frames[::-1], "b/short": frames[:5], "b/torn": frames[:12]}.items():
        (root / name).mkdir(parents=True)
        for number, frame in enumerate(part):
            Image.fromarray(frame).save(root / name / f"{number:05d}.png")
    torn = root / "b" / "torn" / "00006.png"
    torn.write_bytes(torn.read_bytes()[:200])
    (root / "b" / "broken.mp4").write_bytes(b"no video" * 50)
    return [root / "a", root / "b"]


def pipeline(folder: Path, settings: PipelineSettings = SETTINGS) -> Pipeline:
    ours = fabric("cpu")
    ours.launch()
    return Pipeline(folder, settings, ours)


@pytest.fixture(scope="module")
def finished(places: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return pipeline(tmp_path_factory.mktemp("run")).run(places)


def test_a_run_ends_with_students_and_a_page(finished: Outcome) -> None:
    output = finished.page.parent
    assert sorted(path.stem for path in finished.weights.iterdir()) == ["basic-unet", "dilate-unet", "evalseg"]
    assert finished.left_out == {"short": "5 frames, less than 10"}
    assert sorted(finished.unreadable) == ["broken.mp4", "torn"]
    first, second = (read_selection(output / f"generation-{number}" / "selection.json") for number in (1, 2))
    assert [(item.masks, item.empty + len(item.kept) > 0) for item in first] == [(20, True), (20, True)]
    every = [(score.score, item.soft) for item in second for score in item.kept]
    assert len(every) == sum(
        max(1, round(0.4 * (40 - empty))) for empty in (empties(second, "a"), empties(second, "b"))
    )
    page = finished.page.read_text("utf-8")
    for words in ("broken.mp4", "5 frames, less than 10", "data:image/jpeg", "dilate-unet, generation 2", "disc-2/"):
        assert words in page
    segmenter = load(finished.weights, "cpu", student="multi-select")
    assert segmenter.step(np.zeros((48, 64, 3), np.uint8)).mask.shape == (48, 64)


def empties(selected: list[Any], name: str) -> int:
    return sum(item.empty for item in selected if Path(item.soft).name == name)


def test_the_second_generation_learns_from_the_consensus(places: list[Path], finished: Outcome, tmp_path: Path) -> None:
    """The first iteration is that of the finished run."""
    shutil.copytree(finished.page.parent, tmp_path / "run", ignore=shutil.ignore_patterns("settings.json", "*ation-2"))
    settings = replace(SETTINGS, consensus=True, second_top=0.6)
    outcome = pipeline(tmp_path / "run", settings).run(places)
    first = tmp_path / "run" / "generation-1"
    mask = next(path for path in sorted((first / "masks" / "consensus" / "a").glob("*/*.png")) if read(path).any())
    name = mask.relative_to(first / "masks" / "consensus")
    sources = [first / "teacher" / name, *(first / "masks" / student / name for student in SETTINGS.students)]
    mean = np.mean([read(path).astype(float) for path in sources], axis=0)
    assert np.abs(read(mask) - mean).max() <= 0.5
    selected = read_selection(tmp_path / "run" / "generation-2" / "selection.json")
    assert [Path(item.soft).parent.name for item in selected] == ["consensus", "consensus"]
    assert [len(item.kept) for item in selected] == [round(0.6 * (20 - item.empty)) for item in selected]
    page = outcome.page.read_text("utf-8")
    assert "best 40&nbsp;% of the masks of each data set" in page
    assert "best 60&nbsp;% of\nthe means of all masks" in page


def test_the_consensus_is_the_mean_at_the_size_of_the_largest_student() -> None:
    teacher = np.zeros((32, 32), np.uint8)
    teacher[:16] = 255
    found = consensus(teacher, [np.full((8, 8), 90, np.uint8), np.full((4, 4), 30, np.uint8)])
    assert found.shape == (8, 8)
    assert (found[:3] == (255 + 90 + 30) / 3).all()
    assert (found[-3:] == (90 + 30) / 3).all()


def read(path: Path) -> npt.NDArray[Any]:
    return np.asarray(Image.open(path))


def test_time_left_is_that_of_networks_trained_before() -> None:
    """The second training of a network takes as long as the first; a wider network costs its multiplications."""
    time_left = TimeLeft(replace(SETTINGS, width={**SETTINGS.width, "basic-unet": 1 / 16}))
    assert time_left.seconds() is None
    time_left.trainings = ["dilate-unet"]
    time_left.inferences = []
    time_left.trained("dilate-unet", 90)
    assert time_left.seconds() == pytest.approx(90)
    time_left.trainings = ["basic-unet"]
    assert time_left.seconds() == pytest.approx(90 * 4 * 20.3 / 19.7)
    time_left.trainings, time_left.inferences, time_left.frames = [], ["dilate-unet"], 4 * 4  # steps x batch
    assert time_left.seconds() == pytest.approx(30)


def test_labels_are_the_agreement_with_the_other_students(finished: Outcome) -> None:
    """Soft intersection over union; a mask is not compared with itself, but where there is no other one."""
    from unsup_fg.agreement import agreement, labelled
    from unsup_fg.records import Records

    half = np.zeros((32, 32), np.uint8)
    half[:, :16] = 200
    other = np.roll(half, 16, axis=1)
    assert agreement(half, [half, half]) == pytest.approx(100)
    assert agreement(half, [half // 2]) == pytest.approx(50, abs=0.1)
    assert agreement(half, [half, other]) == pytest.approx(100 / 3, abs=2)
    assert agreement(half, [other]) < 2
    assert agreement(np.zeros_like(half), [np.zeros_like(half)]) == 0
    frame = np.zeros((32, 32, 3), np.uint8)
    found = {
        record.name: record.label for record in labelled("f", frame, {"a": half, "b": half, "c": other}, half // 2)
    }
    assert found["a/f"] == found["b/f"] == pytest.approx(100 / 3, abs=2)
    assert found["c/f"] < 2
    assert found["videopca/f"] == pytest.approx(50, abs=0.1)
    assert [record.label for record in labelled("f", frame, {"a": half})] == [pytest.approx(100)]
    written = Records(finished.page.parent / "generation-1" / "labels")
    labels = [written.evalseg(index).label for index in range(len(written))]
    assert 0 <= min(labels) < max(labels) <= 100


class Killed(BaseException):
    """In place of SIGKILL: nothing may catch it."""


def test_a_run_goes_on_after_any_interruption(
    places: list[Path], finished: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at the start of each stage and in the middle of trainings and of trees of masks."""
    stages = interruptions(monkeypatch)
    kills = 0
    while True:
        try:
            outcome = pipeline(tmp_path).run(places)
            break
        except Killed:
            kills += 1
    assert kills == len(list(stages)) > 16
    assert_same_files(finished.page.parent, outcome.page.parent)


def interruptions(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Make a run fail once at each of many moments; returns their names as they come."""
    seen: set[str] = set()

    def once(moment: str) -> None:
        if moment not in seen:
            seen.add(moment)
            raise Killed

    def before(owner: Any, name: str, moment: Callable[..., str]) -> None:
        original = getattr(owner, name)

        def wrapped(*arguments: Any, **options: Any) -> Any:
            once(moment(*arguments, **options))
            return original(*arguments, **options)

        monkeypatch.setattr(owner, name, wrapped)

    before(Pipeline, "_begin", lambda self, what: what)
    before(
        __import__("vos_shared.training.run", fromlist=["TrainingRun"]).TrainingRun,
        "finished",
        lambda run, *_, **__: f"{run.folder} {run.step}",
    )
    before(
        __import__("unsup_fg.pipeline", fromlist=["_"]), "frame_scores", lambda net, item, root: f"{item.name} {root}"
    )
    return seen


def assert_same_files(one: Path, other: Path) -> None:
    """Masks and records byte by byte, scores and weights by value; files that hold times or paths are left out."""
    names = {path.relative_to(one) for path in files(one)}
    assert names == {path.relative_to(other) for path in files(other)}
    for name in names:
        if name.suffix == ".safetensors":
            mine, theirs = (load_weights(root / name).network.state_dict() for root in (one, other))
            assert all(torch.equal(value, theirs[key]) for key, value in mine.items()), name
        elif name.name == "selection.json":
            assert [item.kept for item in read_selection(one / name)] == [
                item.kept for item in read_selection(other / name)
            ]
        else:
            assert (one / name).read_bytes() == (other / name).read_bytes(), name


def files(root: Path) -> Iterator[Path]:
    for path in root.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
        if (
            path.is_file()
            and not hidden
            and path.name not in {"resume.pt", "log.jsonl"}
            and "tensorboard" not in str(path)
        ):
            yield path


def test_another_run_in_the_folder_is_refused(places: list[Path], finished: Outcome) -> None:
    output = finished.page.parent
    with pytest.raises(UserError, match=r"other settings \(top\)"):
        pipeline(output, replace(SETTINGS, top=0.5)).run(places)
    with pytest.raises(UserError, match=r"other videos \(b\)"):
        pipeline(output).run(places[:1])
    before = finished.page.stat().st_mtime_ns
    weights = finished.weights.parent / "generation-2" / "training" / "dilate-unet" / "last.safetensors"
    written = weights.stat().st_mtime_ns
    pipeline(output).run(places)
    assert weights.stat().st_mtime_ns == written
    assert finished.page.stat().st_mtime_ns > before


def test_the_command(places: list[Path], finished: Outcome, run_command: RunCommand, tmp_path: Path) -> None:
    """Exit code 1 says that videos were skipped; those are listed at the end."""
    settings = json.loads((finished.page.parent / "settings.json").read_text())
    words: list[object] = [
        word for name in ("width", "steps", "batch", "learning_rate") for word in option(name, settings[name])
    ]
    words += ["--students", *SETTINGS.students, "--norm-momentum", 0.5, "--input-size", 32, "--size", 32, "--top", 0.4]
    run = ("run", *places, "--output", finished.page.parent, "--shards", 2, *words, "--device", "cpu", "--workers", 0)
    outcome = run_command(main, "unsup-fg", *run)
    assert outcome.code == 1, outcome.stderr
    assert "2 videos skipped, cannot be read:" in outcome.stderr
    assert f"report: {finished.page}\n" in outcome.stdout
    assert "left for the whole run" not in outcome.stdout  # Nothing was trained, so nothing is known.
    cases = {
        "--top is 2": ("run", *places, "--output", tmp_path / "x", "--top", 2),
        "does not exist": ("run", tmp_path / "nowhere", "--output", tmp_path / "x", "--device", "cpu"),
        "--second must": ("run", *places, "--output", tmp_path / "x", "--second", "lowres", "lowres"),
        "lowres sees 128": ("train", "lowres", tmp_path, "--output", tmp_path / "x", "--input-size", 64),
    }
    for message, arguments in cases.items():
        refused = run_command(main, "unsup-fg", *arguments)
        assert refused.code == 2, message
        assert message in refused.stderr
        assert refused.stderr.count("\n") == 1


def option(name: str, values: dict[str, Any]) -> list[str]:
    return [f"--{name.replace('_', '-')}", *(str(word) for pair in values.items() for word in pair)]
