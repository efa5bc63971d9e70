"""Fixtures of the command line tests: a tiny data set, a package of another author, the compare tool."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vos_shared.masks import write_mask

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

FRAMES = 6
SIZE = (48, 64)

Compare = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def davis_root(tmp_path: Path) -> Path:
    """DAVIS-2017 tree of two clips with two objects each: ``still``, where nothing moves, and ``moving``."""
    root = tmp_path / "davis"
    (root / "ImageSets" / "2017").mkdir(parents=True)
    (root / "ImageSets" / "2017" / "val.txt").write_text("still\nmoving\n")
    for name, speed in (("still", 0), ("moving", 3)):
        frames, masks = (root / folder / "480p" / name for folder in ("JPEGImages", "Annotations"))
        frames.mkdir(parents=True)
        masks.mkdir(parents=True)
        ground = np.random.default_rng(0).integers(40, 90, (*SIZE, 3), dtype=np.uint8)
        for t in range(FRAMES):
            mask = np.zeros(SIZE, np.uint8)
            mask[8:24, 4 + speed * t : 20 + speed * t] = 1
            mask[28:40, 40 - speed * t : 60 - speed * t] = 2
            frame = ground.copy()
            frame[mask == 1] = (210, 60, 50)
            frame[mask == 2] = (60, 90, 220)
            Image.fromarray(frame).save(frames / f"{t:05d}.jpg", quality=95)
            write_mask(masks / f"{t:05d}.png", mask)
    return root


STRANGER = '''
"""A package that the toolbox has never heard of."""
import os, signal, time
import numpy as np
from vos_shared.method import Method, ModelInfo, Segmentation, Segmenter, Supervision

class Copy(Segmenter):
    info = ModelInfo(1234567, "untrained, seed 0", False)
    def __init__(self, pause=0.0, death=None):
        self.pause, self.death = pause, death
    def reset(self):
        self.mask = None
    def step(self, frame, prompt=None, *, soft_masks=False):
        print("step in process", os.getpid(), flush=True)
        time.sleep(self.pause)
        if self.death == "exception":
            raise RuntimeError("no more <b>ideas</b>\\nsecond line")
        if self.death == "memory":
            raise MemoryError
        if self.death in ("SIGSEGV", "SIGKILL"):
            os.kill(os.getpid(), getattr(signal, self.death))
        if self.mask is None:
            self.mask = np.zeros(frame.shape[:2], np.uint8)
        if prompt is not None:
            self.mask = np.where(self.mask == 0, prompt, self.mask)
        return Segmentation(self.mask[1:] if self.death == "shrinking" else self.mask)

class Middle(Copy):
    def step(self, frame, prompt=None, *, soft_masks=False):
        assert prompt is None, "an unsupervised method must not see masks"
        height, width = frame.shape[:2]
        mask = np.zeros((height, width), np.uint8)
        mask[height // 4 : -height // 4, width // 4 : -width // 4] = 1
        return Segmentation(mask)

def load_copy(weights, device, precision, **options): return Copy(**options)
def load_middle(weights, device, precision): return Middle()

COPY = Method("copy", "First mask repeated", "", Supervision.FIRST_FRAME, "stranger:load_copy", {
    "slow": {"pause": 0.4}, "excepts": {"death": "exception"}, "crashes": {"death": "SIGSEGV"},
    "killed": {"death": "SIGKILL"}, "starves": {"death": "memory"},
    "shrinks": {"death": "shrinking"}})
MIDDLE = Method("middle", "A box in the middle", "A. Stranger, 2024", Supervision.NONE, "stranger:load_middle")
'''
ENTRY_POINTS = "[vos.methods]\ncopy = stranger:COPY\nmiddle = stranger:MIDDLE\nunimportable = nowhere:METHOD\n"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Environment variables that install the package of another author."""
    site = tmp_path / "site"
    information = site / "stranger-0.1.dist-info"
    information.mkdir(parents=True)
    (site / "stranger.py").write_text(STRANGER)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 0.1\n")
    (information / "entry_points.txt").write_text(ENTRY_POINTS)
    return {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """Start of a compare command that writes to ``out`` in the test's folder."""
    return [sys.executable, str(ROOT / "tools" / "compare.py"), "--output", str(tmp_path / "out"), "--device", "cpu"]


@pytest.fixture
def compare(command: list[str], environment: dict[str, str]) -> Compare:
    """Run the compare tool with more arguments."""

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        line = [*command, *map(str, arguments)]
        return subprocess.run(line, env=environment, capture_output=True, text=True, check=False, timeout=300)

    return run
