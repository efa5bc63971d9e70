import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from vos_shared.checkpoints.published import PublishedWeights, WeightsTable, cache_folder, fetch, file_sha256
from vos_shared.errors import BadWeights

CONTENT = b"weights " * 1000
SHA256, MD5 = hashlib.sha256(CONTENT).hexdigest(), hashlib.md5(CONTENT).hexdigest()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


class Wrong(BaseHTTPRequestHandler):
    """Answers that are not a complete file."""

    answers: ClassVar[dict[str, bytes]] = {
        "/cut.pth": b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + bytes(100),
        "/chunks.pth": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\n" + bytes(30),
        "/nonsense.pth": b"nonsense\r\n\r\n",
    }

    def do_GET(self) -> None:
        self.wfile.write(self.answers[self.path])

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    """Address of a web server of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """A web server with `model.pth`."""
    folder = tmp_path / "web"
    folder.mkdir()
    (folder / "model.pth").write_bytes(CONTENT)
    with serving(partial(Quiet, directory=str(folder))) as address:
        yield address


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


def entry(url: str, **known: object) -> PublishedWeights:
    return PublishedWeights(name="paper", url=url, licence="MIT", source="the authors", **known)  # type: ignore[arg-type]


def table(paper: PublishedWeights) -> WeightsTable:
    return WeightsTable({"paper": paper}, Path("shipped.safetensors"), "the default", {"untrained": "seed 0"})


@pytest.mark.parametrize("home", ["TORCH_HOME", "XDG_CACHE_HOME", None])
def test_the_cache_is_torch_hubs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: str | None) -> None:
    monkeypatch.delenv("TORCH_HOME")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if home:
        monkeypatch.setenv(home, str(tmp_path))
    assert cache_folder() == Path(torch.hub.get_dir()) / "checkpoints"


def test_weights_are_downloaded_once_and_checked(web: str, cache: Path) -> None:
    ends = (MD5[:5], MD5[-5:])
    path = table(entry(f"{web}/model.pth", bytes=len(CONTENT), sha256=SHA256, md5=MD5, md5_ends=ends)).locate("paper")
    assert path == cache / "model.pth"
    assert path.read_bytes() == CONTENT
    offline = table(entry("http://127.0.0.1:9/model.pth", sha256=SHA256))
    assert offline.locate("paper") == path
    assert offline.locate(None) == offline.locate("shipped") == Path("shipped.safetensors")


def test_a_file_of_the_user_wins_over_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "paper").touch()
    monkeypatch.chdir(tmp_path)
    assert table(entry("http://127.0.0.1:9/model.pth")).locate("paper") == Path("paper")


@pytest.mark.parametrize(
    "known",
    [
        {"sha256": "0" * 64},
        {"md5": "0" * 32},
        {"bytes": 7},
        {"md5_ends": ("00000", MD5[-5:])},
        {"md5_ends": (MD5[:5], "00000")},
    ],
)
def test_another_file_on_the_web_is_refused(web: str, cache: Path, known: dict[str, object]) -> None:
    with pytest.raises(BadWeights, match=r"model\.pth has"):
        fetch(entry(f"{web}/model.pth", **known))
    assert os.listdir(cache) == []  # noqa: PTH208 - hidden files too


def test_another_file_in_the_cache_is_refused(cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "model.pth").write_bytes(b"other")
    with pytest.raises(BadWeights, match="delete it"):
        fetch(entry("http://127.0.0.1:9/model.pth", md5=MD5))


def test_offline_says_what_to_do_by_hand(web: str, cache: Path) -> None:
    for url in ("http://127.0.0.1:9/model.pth", f"{web}/gone.pth", "nonsense"):
        with pytest.raises(BadWeights, match="cannot be downloaded") as caught:
            fetch(entry(url))
        assert url in str(caught.value)
        assert str(cache) in str(caught.value)
        assert os.listdir(cache) == []  # noqa: PTH208 - hidden files too


@pytest.mark.parametrize(
    ("name", "says"), [("cut", r"100 of 1,000 bytes came"), ("chunks", "IncompleteRead"), ("nonsense", r"nonsense")]
)
def test_a_download_that_breaks_off_leaves_nothing(cache: Path, name: str, says: str) -> None:
    """Only the server's header tells the size of the file."""
    with serving(Wrong) as web, pytest.raises(BadWeights, match=rf"cannot be downloaded \({says}.*\); fetch") as caught:
        fetch(entry(f"{web}/{name}.pth"))
    assert "\n" not in str(caught.value)
    assert os.listdir(cache) == []  # noqa: PTH208 - hidden files too


def test_without_an_address_the_source_is_named(cache: Path) -> None:
    with pytest.raises(BadWeights, match=r"from the authors and store them as .*paper"):
        table(entry("")).locate("paper")


def test_tensorflow_checkpoints_are_found_by_prefix_and_by_name(cache: Path, tmp_path: Path) -> None:
    for folder in (cache, tmp_path):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "paper.ckpt-7.index").touch()
    assert table(entry("")).locate("paper") == cache / "paper.ckpt-7"
    assert table(entry("")).locate(tmp_path / "paper.ckpt-7") == tmp_path / "paper.ckpt-7"


def test_unknown_names_are_told_the_known_ones() -> None:
    with pytest.raises(BadWeights, match=r"no weights file nowhere\.pth; known names are shipped, paper, untrained"):
        table(entry("")).locate("nowhere.pth")
    with pytest.raises(BadWeights, match="no weights are called nowhere; there are shipped, paper, untrained"):
        table(entry("")).facts("nowhere")


def test_a_table_says_what_is_known() -> None:
    known = table(entry("http://127.0.0.1:9/model.pth", md5_ends=("01234", "56789"), scores={"J": 69.34}))
    assert known.rows() == [["shipped", "-", "the default"], ["paper", "J 69.3", ""], ["untrained", "-", "seed 0"]]
    facts = known.facts("paper")
    assert (facts["md5"], facts["licence"], facts["J"]) == ("01234..56789 (no more is published)", "MIT", "69.3")
    assert known.facts("untrained") == {"note": "seed 0"}


def test_sha256_of_a_file(tmp_path: Path) -> None:
    """FIPS 180-2, the test vector of one block."""
    (tmp_path / "abc").write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_sha256(tmp_path / "abc") == digest
