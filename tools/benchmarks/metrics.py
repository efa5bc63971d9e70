"""J and F of whole results folders, beside a plain implementation of their definitions on the same masks."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import binary_dilation

SIZE = (480, 854)
RADIUS = 8  # DAVIS: 0.008 of the diagonal of 480 x 854, rounded up.
PLAIN_EVERY = 12
"""The plain implementation scores every twelfth frame once, as it is slow and each frame costs the same."""

Mask = npt.NDArray[np.bool_]
Values = dict[str, list[float]]
"""J and F by sequence, object and frame, to compare the two implementations."""


def run(rounds: int = 3) -> list[dict[str, Any]]:
    """Measure scoring a results folder: PNG decoding, J and F, object by object.

    Uses the published results in $VOS_DATA where that is set, else drawn blobs, 480 x 854 both. Each row is a fresh
    interpreter; CPU time is that of all its processes, without the import of modules.

    Args:
        rounds: times that ours is measured; the fastest counts, as others may use the machine.
    """
    with tempfile.TemporaryDirectory() as folder:
        truth, results = _masks(Path(folder))
        plain = _measure("plain", truth, results)
        one, two = ([_measure(workers, truth, results) for _ in range(rounds)] for workers in ("1", "2"))
    difference = max(np.abs(np.subtract(one[0]["values"][k], v)).max() for k, v in plain["values"].items())
    if difference > 1e-12:
        raise ArithmeticError(f"the implementations differ by {difference}")
    rows = {"plain: pixel counts, dilation by a disk": [plain], "vos-shared": one, "vos-shared, 2 processes": two}
    return [{"what": name, **_best(measured, plain)} for name, measured in rows.items()]


def _best(measured: Sequence[Mapping[str, Any]], plain: Mapping[str, Any]) -> dict[str, float]:
    cpu = min(row["cpu"] for row in measured)
    return {
        "CPU ms a frame": cpu,
        "wall ms a frame": min(row["wall"] for row in measured),
        "times less CPU": plain["cpu"] / cpu,
        "peak MiB of a process": max(row["memory"] for row in measured),
    }


def _masks(folder: Path) -> tuple[Path, Path]:
    """Folders of the truth and of predictions, `<sequence>/<frame>.png` each."""
    if data := os.environ.get("VOS_DATA"):
        return Path(data, "davis2017-val-open/Annotations/480p"), Path(data, "published-results/osvos-davis2017")
    from vos_shared.masks import write_mask

    for name in "abcd":
        noise = np.random.default_rng(ord(name))
        start, speed, phase = noise.uniform(150, 330, 2), noise.uniform(-1, 4, 2), noise.uniform(0, 6, 2)
        for kind in ("truth", "results"):
            (folder / kind / name).mkdir(parents=True)
            for t in range(60):
                centre = start + speed * t + (noise.normal(0, 3, 2) if kind == "results" else 0)
                write_mask(folder / kind / name / f"{t:05d}.png", _blob(centre, phase + t / 10))
    return folder / "truth", folder / "results"


def _blob(centre: npt.NDArray[np.float64], phase: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    y, x = np.ogrid[: SIZE[0], : SIZE[1]]
    angle, distance = np.arctan2(y - centre[0], x - centre[1]), np.hypot(y - centre[0], x - centre[1])
    edge = 110 + 25 * np.sin(3 * angle + phase[0]) + 12 * np.sin(8 * angle + phase[1])
    return np.asarray(distance < edge, dtype=np.uint8)


def _measure(what: str, truth: Path, results: Path) -> dict[str, Any]:
    """Run one row in a fresh interpreter; milliseconds a frame, MiB, and the scores."""
    command = [sys.executable, __file__, what, str(truth), str(results)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


def _timed(score: Callable[[], tuple[int, Values]]) -> dict[str, Any]:
    wall, before = time.perf_counter(), os.times()
    frames, values = score()
    wall, after = time.perf_counter() - wall, os.times()
    return {
        "wall": 1000 * wall / frames,
        "cpu": 1000 * (sum(after[:4]) - sum(before[:4])) / frames,
        "memory": max(_own_peak(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024),
        "values": values,
    }


def _own_peak() -> float:
    """Peak memory in MiB; getrusage would include the parent's memory before exec."""
    match = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(match[1]) / 1024 if match else float("nan")


def _score_with_ours(truth: Path, results: Path, workers: int) -> Callable[[], tuple[int, Values]]:
    from vos_shared.datasets import VideoSequence
    from vos_shared.evaluation import evaluate
    from vos_shared.video import Video

    blank = Video.open(np.zeros((1, *SIZE, 3), dtype=np.uint8), name="never shown")
    sequences = [
        VideoSequence(folder.name, blank, {path.stem: path for path in sorted(folder.glob("*.png"))})
        for folder in _both(truth, results)
    ]

    def score() -> tuple[int, Values]:
        scores = evaluate("davis2017", sequences, results, workers=workers, progress=False)
        frames = {item.sequence: len(item.frame_names) for item in scores.items.values()}
        return sum(frames.values()), {
            f"{name} {frame}": [region, contour]
            for name, item in scores.items.items()
            for frame, region, contour in zip(item.frame_names, item.frames.region, item.frames.contour, strict=True)
        }

    return score


def _score_plainly(truth: Path, results: Path) -> tuple[int, Values]:
    values: Values = {}
    frames = 0
    for folder in _both(truth, results):
        paths = sorted(folder.glob("*.png"))
        ids = [k for k in np.unique(_read(paths[0])) if k]
        for path in paths[1:-1:PLAIN_EVERY]:
            ours, theirs = _read(path), _read(results / folder.name / path.name)
            frames += 1
            for k in ids:
                values[f"{folder.name}_{k} {path.stem}"] = [
                    _region(ours == k, theirs == k),
                    _contour(ours == k, theirs == k),
                ]
    return frames, values


def _both(truth: Path, results: Path) -> Sequence[Path]:
    return [folder for folder in sorted(truth.iterdir()) if (results / folder.name).is_dir()]


def _read(path: Path) -> npt.NDArray[np.uint8]:
    return np.array(Image.open(path))


def _region(truth: Mask, prediction: Mask) -> float:
    union = np.count_nonzero(truth | prediction)
    return np.count_nonzero(truth & prediction) / union if union else 1.0


def _contour(truth: Mask, prediction: Mask) -> float:
    y, x = np.ogrid[-RADIUS : RADIUS + 1, -RADIUS : RADIUS + 1]
    disk = x * x + y * y <= RADIUS * RADIUS
    ours, theirs = _boundary(truth), _boundary(prediction)
    if not ours.any() or not theirs.any():
        return float(ours.any() == theirs.any())
    precision = np.count_nonzero(theirs & binary_dilation(ours, disk)) / np.count_nonzero(theirs)
    recall = np.count_nonzero(ours & binary_dilation(theirs, disk)) / np.count_nonzero(ours)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _boundary(mask: Mask) -> Mask:
    padded = np.pad(mask, (0, 1), mode="edge")
    edge: Mask = (mask ^ padded[1:, :-1]) | (mask ^ padded[:-1, 1:]) | (mask ^ padded[1:, 1:])
    return edge


def _main(what: str, truth: Path, results: Path) -> Mapping[str, Any]:
    if what == "plain":
        return _timed(lambda: _score_plainly(truth, results))
    return _timed(_score_with_ours(truth, results, workers=int(what)))


if __name__ == "__main__":
    print(json.dumps(_main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))))
