"""Files that users name: only regular files are opened, and deeply nested JSON is an error of one line."""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vos_shared.checkpoints import safetensors_io
from vos_shared.checkpoints.caffe import read_caffemodel
from vos_shared.checkpoints.npz import read_npz
from vos_shared.checkpoints.published import PublishedWeights, fetch
from vos_shared.checkpoints.tensorflow import read_checkpoint
from vos_shared.checkpoints.torch_pickle import load_torch
from vos_shared.cli import main
from vos_shared.datasets import davis2017, youtube_vos
from vos_shared.datasets.coco import CocoObjects
from vos_shared.datasets.frame_lists import read_folder_list
from vos_shared.datasets.youtube_objects_boxes import youtube_objects_boxes
from vos_shared.doctor import examine
from vos_shared.errors import UserError
from vos_shared.files import open_file, read_json
from vos_shared.inputs import InputArguments
from vos_shared.masks import read_mask, write_mask
from vos_shared.results import ResultsTree
from vos_shared.soft_masks import read_soft_mask
from vos_shared.submission import validate_submission
from vos_shared.training.log import TrainingLog
from vos_shared.training.resume import ResumeFile
from vos_shared.training.snapshots import BestSnapshots
from vos_shared.video import Video
from vos_shared.video_sources import read_frame

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")


@pytest.fixture(autouse=True)
def nobody_writes() -> Iterator[None]:
    """Reading a pipe would wait forever: let the test run fail rather than hang."""
    timer = threading.Timer(60, os._exit, [70])
    timer.start()
    yield
    timer.cancel()


@pytest.mark.parametrize("kind", ["pipe", "link to a pipe", "device", "socket"])
def test_only_regular_files_are_opened(kind: str) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        path = Path(folder, "x")
        if kind == "device":
            path = Path("/dev/zero")
        elif kind == "socket":
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(str(path))
        else:
            os.mkfifo(path)
        if kind == "link to a pipe":
            path = path.rename(path.with_name("pipe"))
            path.with_name("x").symlink_to(path)
            path = path.with_name("x")
        with pytest.raises(OSError, match=r"pipe, a device or a socket|No such device"):
            open_file(path)


def test_regular_files_and_links_to_them_are(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with open_file(tmp_path / "b") as file:
        assert file.read() == b"abc"
    with pytest.raises(IsADirectoryError):
        open_file(tmp_path)
    with pytest.raises(FileNotFoundError):
        open_file(tmp_path / "c")


READERS: dict[str, Callable[[Path], object]] = {
    "frame.png": read_frame,
    "mask.png": read_mask,
    "video.mp4": lambda path: Video.open(path).size,
    "list.txt": lambda path: read_folder_list(path, path.parent),
    "split.txt": lambda path: davis2017(path.parent, path),
    "valid/meta.json": lambda path: youtube_vos(path.parents[1]),
    "annotations/instances_train2017.json": lambda path: CocoObjects(path.parents[1]),
    "x.safetensors": safetensors_io.load,
    "x.pth": load_torch,
    "x.caffemodel": read_caffemodel,
    "x.npz": read_npz,
    "x.index": read_checkpoint,
    "resume.pt": lambda path: ResumeFile(path).load(),
    "boxes.csv": lambda path: youtube_objects_boxes(path.parent),
    "all.zip": lambda path: validate_submission("davis2017", [], path),
}


def _tensorflow(index: Path) -> object:
    os.mkfifo(index.with_suffix(".data-00000-of-00001"))
    index.unlink()
    index.touch()
    return read_checkpoint(index)


def _published(path: Path) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vos_shared.checkpoints.published.cache_folder", lambda: path.parent)
        return fetch(PublishedWeights(name=path.name, url="", licence="", source="", md5="0" * 32))


REFUSED_BY_THE_SYSTEM: dict[str, Callable[[Path], object]] = {
    "log.jsonl": lambda path: TrainingLog(path.parent),
    "weights.index": _tensorflow,
    "weights.caffemodel": _published,
}


@pytest.mark.parametrize("name", REFUSED_BY_THE_SYSTEM)
def test_pipes_in_a_run_and_among_weights(tmp_path: Path, name: str) -> None:
    """The command line prints such an error as one line."""
    if name == "log.jsonl":
        pytest.importorskip("tensorboard")
    os.mkfifo(tmp_path / name)
    with pytest.raises(OSError, match="pipe, a device or a socket") as caught:
        REFUSED_BY_THE_SYSTEM[name](tmp_path / name)
    assert caught.value.filename is not None


@pytest.mark.parametrize("name", READERS)
def test_no_reader_waits_for_a_pipe(tmp_path: Path, name: str) -> None:
    if "annotations" in name:
        pytest.importorskip("pycocotools")
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)
    with pytest.raises(UserError) as caught:
        READERS[name](path)
    assert "\n" not in str(caught.value)


def test_pipes_beside_files(tmp_path: Path) -> None:
    """Records, soft masks and scores that are pipes count as missing; doctor names the mask."""
    tree = ResultsTree(tmp_path)
    (tmp_path / ".manifest").mkdir()
    (tmp_path / "1").mkdir()
    for name in (".manifest/cat.json", "1/00000.npy", "scores.json"):
        os.mkfifo(tmp_path / name)
    assert tree.record("cat") is None
    assert read_soft_mask(tmp_path, 1, "00000") is None
    assert BestSnapshots(tmp_path).entries() == []
    (tmp_path / "results/cat").mkdir(parents=True)
    os.mkfifo(tmp_path / "results/cat/00000.png")
    assert "pipe, a device or a socket" in "".join(examine(tmp_path / "results").problems)


def test_prompts_and_truth_that_are_pipes(davis: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames, prompt = davis / "JPEGImages/480p/cat", tmp_path / "prompt.png"
    os.mkfifo(prompt)
    with pytest.raises(UserError, match="pipe, a device or a socket"):
        InputArguments(source=str(frames)).load(prompt)
    truth = davis / "Annotations/480p/cat/00001.png"
    truth.unlink()
    os.mkfifo(truth)
    arguments = ["vos", "evaluate", "--root", str(davis), "--results", str(davis / "Annotations/480p")]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe{}", b"", b"{"])
def test_json_that_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r".") as caught:
        read_json(path)
    assert "\n" not in str(caught.value)


def test_json_with_a_mark(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(b"\xef\xbb\xbf" + json.dumps([1, "é"]).encode())
    assert read_json(tmp_path / "x.json") == [1, "é"]


def test_written_masks_are_regular(tmp_path: Path) -> None:
    write_mask(tmp_path / "mask.png", np.ones((4, 4), np.uint8))
    with Image.open(tmp_path / "mask.png") as image:
        assert image.size == (4, 4)
    open_file(tmp_path / "mask.png").close()
