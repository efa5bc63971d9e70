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

from vos_shared.checkpoints.published import PublishedWeights, cache_folder, fetch, file_sha256, resolve
from vos_shared.errors import BadWeights

CONTENT = b"weights " * 1000
SHA256, MD5 = hashlib.sha256(CONTENT).hexdigest(), hashlib.md5(CONTENT).hexdigest()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


class Wrong(BaseHTTPRequestHandler):
    """Answers that are no whole file."""

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


@pytest.mark.parametrize("home", ["TORCH_HOME", "XDG_CACHE_HOME", None])
def test_the_cache_is_torch_hubs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: str | None) -> None:
    monkeypatch.delenv("TORCH_HOME")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if home:
        monkeypatch.setenv(home, str(tmp_path))
    assert cache_folder() == Path(torch.hub.get_dir()) / "checkpoints"


def test_weights_are_downloaded_once_and_checked(web: str, cache: Path) -> None:
    table = {"paper": entry(f"{web}/model.pth", bytes=len(CONTENT), sha256=SHA256, md5=MD5)}
    path = resolve("paper", table)
    assert path == cache / "model.pth"
    assert path.read_bytes() == CONTENT
    offline = {"paper": entry("http://127.0.0.1:9/model.pth", sha256=SHA256)}
    assert resolve("paper", offline) == path
    assert resolve(None, offline) == path


def test_a_file_of_the_user_wins_over_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "paper").touch()
    monkeypatch.chdir(tmp_path)
    assert resolve("paper", {"paper": entry("http://127.0.0.1:9/model.pth")}) == Path("paper")


@pytest.mark.parametrize("known", [{"sha256": "0" * 64}, {"md5": "0" * 32}, {"bytes": 7}])
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
    """Nothing is known of the file but what the server says of it."""
    with serving(Wrong) as web, pytest.raises(BadWeights, match=rf"cannot be downloaded \({says}.*\); fetch") as caught:
        fetch(entry(f"{web}/{name}.pth"))
    assert "\n" not in str(caught.value)
    assert os.listdir(cache) == []  # noqa: PTH208 - hidden files too


def test_without_an_address_the_source_is_named(cache: Path) -> None:
    with pytest.raises(BadWeights, match=r"from the authors and store them as .*paper"):
        resolve("paper", {"paper": entry("")})


def test_unknown_names_are_told_the_known_ones() -> None:
    with pytest.raises(BadWeights, match=r"no weights file nowhere\.pth; published weights are paper"):
        resolve("nowhere.pth", {"paper": entry("")})
    with pytest.raises(BadWeights, match="no published weights"):
        resolve("nowhere.pth", {})
    with pytest.raises(BadWeights, match="give a file"):
        resolve(None, {})


def test_sha256_of_a_file(tmp_path: Path) -> None:
    """FIPS 180-2, the test vector of one block."""
    (tmp_path / "abc").write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_sha256(tmp_path / "abc") == digest
