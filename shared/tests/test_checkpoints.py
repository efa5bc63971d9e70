import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from vos_shared.checkpoints import safetensors_io
from vos_shared.checkpoints.checking import require_weights
from vos_shared.checkpoints.torch_pickle import load_torch
from vos_shared.errors import BadWeights


def test_weights_come_back_with_their_metadata(tmp_path: Path) -> None:
    weights = {"a.weight": torch.randn(3, 4).half(), "b": torch.tensor(5), "turned": torch.randn(2, 3).T}
    safetensors_io.save(tmp_path / "new" / "w.safetensors", weights, {"method": "test", "licence": "Apache-2.0"})
    loaded, metadata = safetensors_io.load(tmp_path / "new" / "w.safetensors")
    assert metadata == {"method": "test", "licence": "Apache-2.0"}
    assert loaded.keys() == weights.keys()
    for name, tensor in weights.items():
        assert loaded[name].dtype == (torch.float32 if tensor.is_floating_point() else tensor.dtype)
        assert torch.equal(loaded[name], tensor.to(loaded[name].dtype))


@pytest.mark.parametrize(
    "value",
    [
        torch.tensor([1.0, torch.nan]),
        torch.tensor([torch.inf]),
        torch.zeros(3, dtype=torch.int8),
        torch.zeros(3, dtype=torch.bool),
        torch.zeros(3, dtype=torch.complex64),
        torch.zeros(3).to(torch.float8_e4m3fn),
        torch.zeros(3, dtype=torch.int64),
    ],
    ids=lambda value: f"{value.dtype}",
)
def test_what_cannot_be_weights_is_refused(value: torch.Tensor, tmp_path: Path) -> None:
    """In every format: such weights would silently segment nothing, or everything."""
    with pytest.raises(BadWeights, match=r"w\.pth.* bad") as refused:
        require_weights({"good": torch.ones(2), "bad": value}, "w.pth")
    assert "\n" not in str(refused.value)
    if not value.is_complex():  # safetensors cannot store it.
        safetensors_io.save(tmp_path / "w.safetensors", {"good": torch.ones(2), "bad": value}, {})
        with pytest.raises(BadWeights, match=r"w\.safetensors.* bad"):
            safetensors_io.load(tmp_path / "w.safetensors")


def test_half_precision_refuses_what_it_cannot_hold(tmp_path: Path) -> None:
    safetensors_io.save(tmp_path / "w.safetensors", {"a": torch.tensor([65504.0])}, {}, half=True)
    with pytest.raises(BadWeights, match="too large for half precision"):
        safetensors_io.save(tmp_path / "w.safetensors", {"a": torch.tensor([70000.0])}, {}, half=True)


def test_an_archive_that_unpacks_to_far_more_is_not_loaded(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(4_000_000)}, tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for member in plain.namelist():
            bomb.writestr(member, plain.read(member))
    assert load_torch(tmp_path / "plain.pth")["a"].shape == (4_000_000,)
    with pytest.raises(BadWeights, match="unpack to 16,"):
        load_torch(tmp_path / "bomb.pth")


def test_tensors_that_share_memory_are_stored_each(tmp_path: Path) -> None:
    whole = torch.arange(6.0)
    safetensors_io.save(tmp_path / "w.safetensors", {"whole": whole, "again": whole, "part": whole[2:4]}, {})
    loaded, _ = safetensors_io.load(tmp_path / "w.safetensors")
    assert torch.equal(loaded["again"], whole)
    assert torch.equal(loaded["part"], whole[2:4])


def test_a_failed_save_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    safetensors_io.save(path, {"a": torch.ones(1)}, {})
    with pytest.raises(TypeError):
        safetensors_io.save(path, {"a": torch.zeros(1)}, {"number": 1})  # type: ignore[dict-item]
    assert torch.equal(safetensors_io.load(path)[0]["a"], torch.ones(1))
    assert os.listdir(tmp_path) == [path.name]  # noqa: PTH208 - hidden files too


def test_our_files_missing_or_damaged(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    with pytest.raises(BadWeights, match="no weights file"):
        safetensors_io.load(path)
    safetensors_io.save(path, {"a": torch.ones(100)}, {})
    whole = path.read_bytes()
    for damaged in (b"", whole[:20], whole[:-8], b"\xff" * 100):
        path.write_bytes(damaged)
        with pytest.raises(BadWeights, match=r"w\.safetensors"):
            safetensors_io.load(path)


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """A snapshot as official training code writes it."""
    weight = torch.nn.Parameter(torch.ones(3))
    optimiser = torch.optim.Adam([weight])
    weight.sum().backward()
    optimiser.step()
    snapshot = {
        "model": {"weight": weight.data},
        "opt": optimiser.state_dict(),
        "score": np.float64(0.5),
        "best": np.int64(7),
        "epoch": 60,
    }
    torch.save(snapshot, tmp_path / "official.pth")
    return tmp_path / "official.pth"


def assert_is_official(snapshot: dict[str, object]) -> None:
    assert snapshot["score"] == 0.5
    assert snapshot["best"] == 7
    assert snapshot["epoch"] == 60
    assert isinstance(snapshot["opt"], dict)


def test_official_snapshots_load_with_their_numpy_score(official: Path) -> None:
    assert_is_official(load_torch(official))


def test_official_snapshots_written_under_numpy_1(official: Path, tmp_path: Path) -> None:
    """NumPy 2 renamed the module of pickled scalars."""
    old = tmp_path / "old.pth"
    with zipfile.ZipFile(official) as source, zipfile.ZipFile(old, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("data.pkl"):
                assert b"numpy._core.multiarray" in content
                content = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
            target.writestr(name, content)
    assert_is_official(load_torch(old))


class Payload:
    """Unpickling it would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("form", ["zip", "legacy", "plain pickle"])
def test_code_in_a_file_is_refused_and_never_run(tmp_path: Path, form: str) -> None:
    trace, path = tmp_path / "was-here", tmp_path / "evil.pth"
    if form == "plain pickle":
        path.write_bytes(pickle.dumps(Payload(trace)))
    else:
        torch.save({"model": Payload(trace)}, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(BadWeights, match="can run code") as caught:
        load_torch(path)
    assert "\n" not in str(caught.value)
    assert not trace.exists()
    with path.open("rb") as file:  # Unpickling does create it, so this test can fail.
        (torch.load(file, weights_only=False) if form != "plain pickle" else pickle.load(file))
    assert trace.exists()


@pytest.mark.parametrize("kept", [0, 5, 200, 700])
def test_torch_files_cut_short(official: Path, kept: int) -> None:
    official.write_bytes(official.read_bytes()[:kept])
    with pytest.raises(BadWeights, match=r"official\.pth") as caught:
        load_torch(official)
    assert "\n" not in str(caught.value)


def test_old_torch_files_cut_or_changed_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    torch.save({"weight": torch.ones(3), "epoch": 60}, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    damaged = [whole[:kept] for kept in range(0, len(whole), 3)]
    damaged += [whole[:place] + b"\xff" + whole[place + 1 :] for place in range(0, len(whole), 3)]
    damaged.append(whole.replace(b"storage", b"storagf"))
    refused = 0
    for content in damaged:
        path.write_bytes(content)
        try:
            load_torch(path)  # A flipped bit may still give a valid number.
        except BadWeights as error:
            assert "\n" not in str(error)  # noqa: PT017 - some do load
            refused += 1
    assert refused > len(damaged) / 2


def test_no_torch_file(tmp_path: Path) -> None:
    with pytest.raises(BadWeights, match="no weights file"):
        load_torch(tmp_path / "nowhere.pth")
