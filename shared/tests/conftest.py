"""Fixtures of many tests of vos-shared."""

import importlib
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vos_shared.masks import write_mask
from vos_shared.method import Method
from vos_shared.video import VideoWriter

sys.path.insert(0, str(Path(__file__).parent))  # For video_files.py.


@pytest.fixture(scope="session")
def copying() -> Iterator[Method]:
    """The method of `copying.py`, importable by its name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parent)
        method = importlib.import_module("copying").COPYING
        assert isinstance(method, Method)
        yield method


@pytest.fixture
def memory_events(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What training does about freed memory: the device of which it is kept, and "given back"."""
    seen: list[object] = []

    @contextmanager
    def kept(device: torch.device) -> Iterator[None]:
        seen.append(device.type)
        yield
        seen.append("given back")

    for module in ("run", "online"):
        monkeypatch.setattr(f"vos_shared.training.{module}.freed_memory_kept", kept)
    return seen


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    """A DAVIS folder: cat, 5 frames with ids 1 and 2; dog, 3 frames with id 1; 40 high, 56 wide."""
    root = tmp_path / "davis"
    random = np.random.default_rng(0)
    for name, count, objects in (("cat", 5, 2), ("dog", 3, 1)):
        frames, masks = (root / kind / "480p" / name for kind in ("JPEGImages", "Annotations"))
        frames.mkdir(parents=True)
        masks.mkdir(parents=True)
        for t in range(count):
            Image.fromarray(random.integers(0, 256, (40, 56, 3), np.uint8)).save(frames / f"{t:05d}.jpg")
            mask = np.zeros((40, 56), np.uint8)
            for k in range(objects):
                mask[5 + 15 * k : 15 + 15 * k, 8 + t : 20 + t] = k + 1
            write_mask(masks / f"{t:05d}.png", mask)
    lists = root / "ImageSets" / "2017"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("cat\ndog\n")
    return root


@pytest.fixture
def frames() -> np.ndarray:
    """A bright square that moves over a gradient, uint8 [11, 48, 64, 3]."""
    video = np.zeros((11, 48, 64, 3), dtype=np.uint8)
    video[..., 0] = np.linspace(20, 120, 64, dtype=np.uint8)
    for t, frame in enumerate(video):
        frame[10:26, 4 * t : 4 * t + 16, 1:] = 220
    return video


@pytest.fixture
def folder(tmp_path: Path, frames: np.ndarray) -> Path:
    folder = tmp_path / "square"
    folder.mkdir()
    for t, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{t:05d}.png")
    return folder


@pytest.fixture
def movie(tmp_path: Path, frames: np.ndarray) -> Path:
    with VideoWriter(tmp_path / "square.mp4", fps=12) as writer:
        for frame in frames:
            writer.write(frame)
    return tmp_path / "square.mp4"


@pytest.fixture
def no_thread_is_left() -> Iterator[None]:
    """No test may leave a thread that reads ahead."""
    yield
    assert [thread for thread in threading.enumerate() if thread.name.startswith("vos-read-ahead")] == []
