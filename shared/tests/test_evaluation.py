"""Scoring of results folders: the numbers of the official tool, and errors in folders."""

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vos_shared.datasets import VideoSequence, davis2016, davis2017
from vos_shared.errors import BadDataset, BadMask, BadResults, UserError
from vos_shared.evaluation import evaluate, without_a_true_id
from vos_shared.masks import write_mask
from vos_shared.method import ObjectMask
from vos_shared.metrics.scores import Scores

Small = tuple[VideoSequence, Path]

ELLIPSES = {"a": (96, 128, 12, 2), "b": (120, 214, 9, 3), "c": (480, 854, 6, 1)}
"""Height, width, frames and objects of each sequence."""

OFFICIAL_SUMMARY = {
    "J&F-Mean": 0.693929691,
    "J-Mean": 0.742917594,
    "J-Recall": 0.911904762,
    "J-Decay": -0.100451780,
    "F-Mean": 0.644941788,
    "F-Recall": 0.654761905,
    "F-Decay": -0.071968512,
}
OFFICIAL_OBJECTS = {
    "a_1": {"J": 0.787988286, "F": 0.787731567},
    "a_2": {"J": 0.653090182, "F": 0.519363423},
    "b_1": {"J": 0.839396828, "F": 0.773995911},
    "b_2": {"J": 0.683369167, "F": 0.514754675},
    "b_3": {"J": 0.535989303, "F": 0.273805150},
    "c_1": {"J": 0.957671798, "F": 1.0},
}


def ellipses(name: str, t: int, *, predicted: bool) -> ObjectMask:
    """Frame t of a sequence: moving ellipses, or a jittered prediction of them."""
    height, width, _, objects = ELLIPSES[name]
    y, x = np.mgrid[:height, :width]
    mask = np.zeros((height, width), dtype=np.uint8)
    for k in range(objects):
        cy, cx = height * (k + 1) // (objects + 1) + 2 * t, width // 4 + 5 * t + 11 * k
        a, b = height // 8 + k, width // 10 + 2 * k
        if predicted:
            cy, cx, a, b = cy + t % 4, cx - 2 * k - t % 3, a + 1 - t % 2, b + 1 - t % 2
        absent = (k + 1, t) == (2, 3) if predicted else (name, k + 1) == ("b", 3) and t in (4, 5)
        if not absent:
            mask[((y - cy) * b) ** 2 + ((x - cx) * a) ** 2 <= (a * b) ** 2] = k + 1
    return mask


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DAVIS tree `truth` and folder `results` of the ellipses."""
    folder = tmp_path_factory.mktemp("ellipses")
    for name, (height, width, frames, _) in ELLIPSES.items():
        video = folder / "truth/JPEGImages/480p" / name
        masks, results = folder / "truth/Annotations/480p" / name, folder / "results" / name
        for path in (video, masks, results):
            path.mkdir(parents=True)
        for t in range(frames):
            Image.new("RGB", (width, height)).save(video / f"{t:05d}.jpg")
            write_mask(masks / f"{t:05d}.png", ellipses(name, t, predicted=False))
            write_mask(results / f"{t:05d}.png", ellipses(name, t, predicted=True))
    return folder


@pytest.fixture
def small(tree: Path, tmp_path: Path) -> Small:
    """Sequence a and a copy of its results that tests may change."""
    results = tmp_path / "results"
    (results / "a").mkdir(parents=True)
    for path in (tree / "results/a").iterdir():
        (results / "a" / path.name).write_bytes(path.read_bytes())
    return davis2017(tree / "truth", ["a"])[0], results


@pytest.fixture(scope="session")
def scores(tree: Path) -> Scores:
    return evaluate("davis2017", davis2017(tree / "truth", list("abc")), tree / "results")


@pytest.fixture(scope="session")
def published() -> Path:
    """Folder of real data sets and of published results on them."""
    if "VOS_DATA" not in os.environ:
        pytest.skip("VOS_DATA names no folder of real data")
    return Path(os.environ["VOS_DATA"])


def test_summary_is_that_of_the_official_tool(scores: Scores) -> None:
    assert scores.summary == pytest.approx(OFFICIAL_SUMMARY, abs=1e-9)


def test_objects_are_those_of_the_official_tool(scores: Scores) -> None:
    assert list(scores.objects) == list(OFFICIAL_OBJECTS)
    for name, row in OFFICIAL_OBJECTS.items():
        assert scores.objects[name] == pytest.approx(row, abs=1e-9)
    assert scores.sequences == {}


@pytest.mark.parametrize("method", ["osvos", "stm"])
def test_published_objects(published: Path, method: str) -> None:
    official = json.loads((published / "published-results/official-scores.json").read_text())[f"{method}-davis2017"]
    sequences = davis2017(published / "davis2017-val-open")
    found = evaluate("davis2017", sequences, published / f"published-results/{method}-davis2017").objects
    assert {name: {key: round(value, 4) for key, value in row.items()} for name, row in found.items()} == official


def test_published_frames(published: Path) -> None:
    official = json.loads((published / "published-results/official-scores.json").read_text())["osmn-davis2016"]
    sequences = [s for year in (2016, 2017) for s in davis2016(published / f"davis{year}-val-open")]
    found = evaluate("davis2016", sequences, published / "published-results/osmn-davis2016").per_frame
    assert set(found) == set(official)
    for name, row in official.items():
        for measure, values in row.items():
            np.testing.assert_allclose(found[name][measure], values, rtol=0, atol=0.0005 + 1e-12)


@pytest.mark.skipif("VOS_PARITY" not in os.environ, reason="VOS_PARITY is not set")
def test_mean_iu_of_osmns_own_masks_is_that_of_its_own_script() -> None:
    folder = Path(os.environ["VOS_PARITY"], "osmn/e2e")
    expected = float((folder / "res2016_iou.txt").read_text().split()[-1])
    found = evaluate("davis2016", davis2016(folder / "DAVIS"), folder / "res2016").summary["J-Mean"]
    assert found == pytest.approx(expected, abs=5e-7)


def test_foreground_joins_the_objects(tree: Path) -> None:
    found = evaluate("davis2016", davis2017(tree / "truth", ["a", "c"]), tree / "results")
    assert list(found.sequences) == ["a", "c"]
    assert found.objects == {}
    assert found.sequences["c"] == pytest.approx(OFFICIAL_OBJECTS["c_1"], abs=1e-9)
    assert found.per_frame["a"]["J"][0] == pytest.approx(_iou_of_foreground("a", 1))


def _iou_of_foreground(name: str, t: int) -> float:
    truth, prediction = (ellipses(name, t, predicted=predicted) > 0 for predicted in (False, True))
    return float((truth & prediction).sum() / (truth | prediction).sum())


def test_proposals_may_have_any_ids(small: Small) -> None:
    sequence, results = small
    swapped = np.array([0, 9, 4], dtype=np.uint8)
    for t, path in enumerate(sorted((results / "a").iterdir())):
        write_mask(path, swapped[ellipses("a", t, predicted=True)])
    found = evaluate("davis2017-unsupervised", [sequence], results)
    assert found.dataset == "davis2017-unsupervised"
    assert len(found.per_frame["a_2"]["J"]) == 12  # The first and the last frame count.
    expected = evaluate("davis2017", [sequence], results.parent / "results")  # Ids 4 and 9 are no objects.
    assert expected.objects["a_1"]["J"] == 0
    assert found.per_frame["a_1"]["J"][1] > 0.7
    told = without_a_true_id(expected, [sequence], results)
    assert told == ["a scores 0: its masks hold the ids 4, 9, the data set's objects are 1, 2"]


def test_nothing_is_told_of_masks_with_one_true_id(small: Small) -> None:
    sequence, results = small
    only_second = np.array([0, 9, 2], dtype=np.uint8)
    for t, path in enumerate(sorted((results / "a").iterdir())):
        write_mask(path, only_second[ellipses("a", t, predicted=True)])
    assert without_a_true_id(evaluate("davis2017", [sequence], results), [sequence], results) == []


def test_a_true_id_in_the_wrong_place_is_no_wrong_id(small: Small) -> None:
    sequence, results = small
    for t, path in enumerate(sorted((results / "a").iterdir())):
        wrong = ellipses("a", t, predicted=False) == 0
        write_mask(path, np.where(wrong, 1, 0).astype(np.uint8))
    scores = evaluate("davis2017", [sequence], results)
    assert scores.summary["J-Mean"] == 0
    assert without_a_true_id(scores, [sequence], results) == []


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_workers_change_nothing(tree: Path, scores: Scores, start_method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vos_shared.runtime.parents.start_method", lambda: start_method)
    sequences = davis2017(tree / "truth", list("abc"))
    found = evaluate("davis2017", sequences, tree / "results", workers=2, progress=False)
    assert found.to_json() == scores.to_json()


def _die(_: object) -> None:
    os._exit(1)


def test_a_dead_worker_is_an_error_not_a_wait(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vos_shared.runtime.parents.start_method", lambda: "fork")
    monkeypatch.setattr("vos_shared.evaluation._score", _die)
    with pytest.raises(UserError, match="one of 2 workers died"):
        evaluate("davis2017", davis2017(tree / "truth", ["a", "b"]), tree / "results", workers=2)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_workers_end_with_their_parent() -> None:
    """A batch system kills only the parent process; workers would wait forever on their queue."""
    program = (
        "import os, time\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        "from multiprocessing import get_context\n"
        "from vos_shared.runtime.parents import follow_parent\n"
        "pool = ProcessPoolExecutor(1, get_context('fork'), follow_parent)\n"
        "print(pool.submit(os.getpid).result(), flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = Path("/proc") / parent.stdout.readline().strip() / "stat"
        assert is_running(worker)
        parent.kill()
    deadline = time.monotonic() + 20
    while is_running(worker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_running(worker)


def is_running(stat: Path) -> bool:
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_json_and_csv_hold_the_scores(tmp_path: Path, scores: Scores) -> None:
    scores.write_json(tmp_path / "scores.json")
    stored = json.loads((tmp_path / "scores.json").read_text())
    assert stored["summary"] == scores.summary
    assert stored["objects"] == scores.objects
    assert "sequences" not in stored
    scores.write_csv(tmp_path / "scores.csv")
    with (tmp_path / "scores.csv").open(newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["all", *scores.objects]
    assert float(rows["b_3"]["J-Mean"]) == scores.objects["b_3"]["J"]
    assert float(rows["all"]["F-Decay"]) == scores.summary["F-Decay"]


def test_first_and_last_frame_need_no_prediction(small: Small, scores: Scores) -> None:
    sequence, results = small
    for t in (0, 11):
        (results / f"a/{t:05d}.png").unlink()
    assert evaluate("davis2017", [sequence], results).objects["a_1"] == scores.objects["a_1"]


def test_all_lacking_frames_are_listed(small: Small, tree: Path) -> None:
    _, results = small
    for t in (3, 7):
        (results / f"a/{t:05d}.png").unlink()
    with pytest.raises(BadResults) as raised:
        evaluate("davis2017", davis2017(tree / "truth", ["a", "c"]), results)
    assert str(results) in str(raised.value)
    assert "a: 00003, 00007; c: 00001-00004" in str(raised.value)


def test_no_results_folder(small: Small, tmp_path: Path) -> None:
    with pytest.raises(BadResults, match=r"no such results folder: .*nowhere"):
        evaluate("davis2017", [small[0]], tmp_path / "nowhere")


def test_prediction_of_another_size(small: Small, tree: Path) -> None:
    sequence, results = small
    write_mask(results / "a/00004.png", np.zeros((48, 64), dtype=np.uint8))
    sequences = [sequence, davis2017(tree / "truth", ["b"])[0]]
    (results / "b").symlink_to(tree / "results/b")
    with pytest.raises(BadResults, match=r"a/00004.png is 64 wide and 48 high.* 128 wide and 96 high"):
        evaluate("davis2017", sequences, results, workers=2)


def test_black_and_white_prediction_is_no_object(small: Small) -> None:
    sequence, results = small
    write_mask(results / "a/00002.png", (ellipses("a", 2, predicted=True) > 0).astype(np.uint8) * 255)
    with pytest.raises(BadMask, match=r"a/00002.png holds 0 and 255 only"):
        evaluate("davis2017", [sequence], results)
    assert evaluate("davis2016", [sequence], results).sequences["a"]["J"] > 0.7


def test_too_many_proposals_name_the_file(small: Small) -> None:
    sequence, results = small
    crowd = np.zeros((96, 128), dtype=np.uint8)
    crowd[0, :21] = np.arange(1, 22)
    write_mask(results / "a/00005.png", crowd)
    with pytest.raises(BadResults, match=r"a/00005.png: .*21 different ids.*20"):
        evaluate("davis2017-unsupervised", [sequence], results)


def test_nothing_to_score(small: Small, tmp_path: Path) -> None:
    sequence, results = small
    two_frames = dict(list(sequence.annotations.items())[:2])
    with pytest.raises(BadDataset, match="no sequence"):
        evaluate("davis2017", [], results)
    with pytest.raises(BadDataset, match="a has 2 annotated frames"):
        evaluate("davis2017", [type(sequence)("a", sequence.video, two_frames)], results)
    write_mask(tmp_path / "empty.png", np.zeros((96, 128), dtype=np.uint8))
    empty = dict.fromkeys(sequence.annotations, tmp_path / "empty.png")
    with pytest.raises(BadDataset, match="masks of a hold no object"):
        evaluate("davis2017", [type(sequence)("a", sequence.video, empty)], results)


@pytest.mark.parametrize(
    ("options", "message"), [({"dataset": "davis2018"}, "davis2018"), ({"workers": 0}, "workers must be at least 1")]
)
def test_what_does_not_exist_is_refused(small: Small, options: dict[str, Any], message: str) -> None:
    sequence, results = small
    with pytest.raises(UserError, match=message):
        evaluate(**{"dataset": "davis2017", "sequences": [sequence], "results": results, **options})


def test_evaluation_imports_neither_torch_nor_scipy() -> None:
    code = "import sys, vos_shared.evaluation; print({'torch', 'scipy', 'av'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
