from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dense_ulearn import checkpoints
from dense_ulearn.checkpoints import load_weights, read_official, read_weights, save_weights, write_official
from dense_ulearn.inference import load
from dense_ulearn.weights import WEIGHTS
from vos_shared.checkpoints.torch_pickle import load_torch
from vos_shared.errors import BadWeights


@pytest.fixture
def snapshot(tmp_path: Path, recipe_state: dict[str, Tensor]) -> Path:
    """A snapshot as the official program writes it: from a parallel wrapper, with a NumPy scalar as score."""
    path = tmp_path / "epoch060_score0.500_res4.pth"
    model = {f"module.{name}": value for name, value in recipe_state.items()}
    opt = {"state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 1e-4}]}
    torch.save({"model": model, "opt": opt, "score": np.float64(0.5), "epoch": 60}, path)
    return path


def test_official_snapshots_are_read(snapshot: Path, recipe_state: dict[str, Tensor]) -> None:
    weights = read_official(snapshot)
    assert weights.metadata == {"epoch": "60", "score": "0.5"}
    assert weights.trained
    assert list(weights.state) == list(recipe_state)
    assert all(torch.equal(weights.state[name], value) for name, value in recipe_state.items())
    assert load(snapshot, "cpu").info.weights == "official epoch060_score0.500_res4, epoch 60"


def test_weights_go_to_the_official_format_and_back(tmp_path: Path, snapshot: Path) -> None:
    ours, theirs = tmp_path / "ours.safetensors", tmp_path / "theirs.pth"
    save_weights(ours, read_official(snapshot))
    write_official(theirs, read_weights(ours).state, epoch=60, score=0.5)
    first, last = read_official(snapshot), read_official(theirs)
    assert first.metadata == last.metadata
    assert all(torch.equal(first.state[name], last.state[name]) for name in first.state)
    content = load_torch(theirs)
    assert set(content) == {"model", "opt", "score", "epoch"}
    assert isinstance(content["score"], np.float64)


def test_half_precision_files_come_back_as_float32(tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    weights = checkpoints.untrained()
    save_weights(path, weights, half=True)
    assert path.stat().st_size < 25_000_000
    back = read_weights(path)
    assert not back.trained
    assert back.description == "untrained, seed 0"
    for name, value in back.state.items():
        assert value.dtype == weights.state[name].dtype
        torch.testing.assert_close(value, weights.state[name], rtol=1e-3, atol=1e-6)


def test_untrained_weights_are_the_same_each_time_and_never_called_trained() -> None:
    state = torch.random.get_rng_state()
    one, two = load_weights("untrained"), load_weights("untrained")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(one.state[name], two.state[name]) for name in one.state)
    info = load("untrained", "cpu").info
    assert (info.trained, info.weights, info.parameters) == (False, "untrained, seed 0", 11_505_856)


def test_a_missing_file_is_an_error_that_names_the_known_weights(tmp_path: Path) -> None:
    with pytest.raises(BadWeights, match=r"no weights file .*ytvos_e060_res4.*untrained"):
        load(tmp_path / "missing.pth", "cpu")


def test_published_weights_that_are_not_here_are_an_error_with_a_way_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, snapshot: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(
        BadWeights, match=r"cannot be downloaded .* fetch https://.* store it as .*ytvos_e060_res4\.pth"
    ):
        load("ytvos_e060_res4", "cpu")
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True, exist_ok=True)
    snapshot.rename(cache / "ytvos_e060_res4.pth")
    with pytest.raises(BadWeights, match=r"has md5 .*, weights ytvos_e060_res4 c3ae3\.\.55faf"):
        load_weights("ytvos_e060_res4")  # It is not the published file.


def test_the_four_published_scores() -> None:
    scores = {name.split("_")[0]: entry.scores["DAVIS-2017 val J&F"] for name, entry in WEIGHTS.published.items()}
    assert scores == {"oxuva": 65.3, "ytvos": 69.3, "trackingnet": 69.4, "kinetics": 68.7}


def other_network() -> dict[str, Tensor]:
    return {"conv1.weight": torch.zeros(64, 3, 7, 7), "fc.weight": torch.zeros(10, 512)}


@pytest.mark.parametrize("content", [{"model": other_network()}, other_network(), [1, 2], {"model": {"a": 1}}])
def test_a_snapshot_of_another_network_is_one_clear_line(content: object, tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save(content, path)
    with pytest.raises(
        BadWeights, match=r"other\.pth( are of another network| are not a dense-ulearn|: a is int, not a tensor)"
    ) as error:
        load(path, "cpu")
    assert "\n" not in str(error.value)


def test_a_wrong_shape_is_named(tmp_path: Path, snapshot: Path) -> None:
    state = {**read_official(snapshot).state, "fast_net.emb_q.conv2.weight": torch.zeros(64, 512, 1, 1)}
    write_official(tmp_path / "narrow.pth", state)
    with pytest.raises(BadWeights, match=r"1 of 129 tensors .*fast_net\.emb_q\.conv2\.weight"):
        read_weights(tmp_path / "narrow.pth")


class Code:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('code from a weights file was run')",)


def test_code_in_a_snapshot_is_not_run(tmp_path: Path) -> None:
    torch.save({"model": Code()}, tmp_path / "evil.pth")
    with pytest.raises(BadWeights, match=r"evil\.pth"):
        load(tmp_path / "evil.pth", "cpu")


def test_epoch_and_score_are_numbers_or_left_out(tmp_path: Path) -> None:
    state = load_weights("untrained").state
    torch.save({"model": state, "epoch": torch.tensor(60), "score": torch.tensor(0.5)}, tmp_path / "a.pth")
    assert read_official(tmp_path / "a.pth").metadata == {"epoch": "60", "score": "0.5"}
    torch.save({"model": state, "epoch": None, "score": torch.zeros(2)}, tmp_path / "b.pth")
    assert read_official(tmp_path / "b.pth").metadata == {}
