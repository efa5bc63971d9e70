"""Reading and writing of official checkpoints and of our own files; the backbone for torchvision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.models import resnet18

from amd_objectness.checkpoints import (
    Weights,
    backbone_state,
    load_weights,
    read_official,
    save_backbone,
    save_weights,
    untrained,
    write_official,
)
from amd_objectness.settings import Architecture
from amd_objectness.weights import WEIGHTS
from vos_shared.checkpoints import safetensors_io
from vos_shared.checkpoints.torch_pickle import load_torch
from vos_shared.errors import BadWeights


@pytest.fixture(scope="module")
def small() -> Weights:
    return untrained(Architecture("resnet18"))


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_every_layout_of_an_official_checkpoint_is_read(small: Weights, tmp_path: Path) -> None:
    meta: dict[str, Any] = {"iter": 400_000, "CLASSES": ("background", "foreground"), "seed": None, "config": "text"}
    optimiser = {"state": {0: {"step": 3, "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]}
    prefixed = {f"module.{name}": value for name, value in small.state.items()}
    layouts = {
        "runner": {"meta": meta, "state_dict": small.state, "optimizer": optimiser},
        "bare": small.state,
        "parallel": {"meta": meta, "state_dict": prefixed},
    }
    for name, content in layouts.items():
        for new_format in (True, False):  # PyTorch 1.5 wrote no zip archive.
            path = tmp_path / f"{name}.pth"
            torch.save(content, path, _use_new_zipfile_serialization=new_format)
            weights, report = read_official(path)
            assert_same(weights.state, small.state)
            assert report.summary() == f"{len(small.state)} keys read"
            assert weights.architecture.backbone == "resnet18"
            assert weights.metadata.get("steps") == (None if name == "bare" else "400000")


def test_the_backbone_of_an_official_checkpoint_is_recognised_by_its_keys(
    parity: Path, recipe_state: dict[str, Tensor], tmp_path: Path
) -> None:
    path = tmp_path / "amd_pretrained.pth"
    torch.save({"meta": {}, "state_dict": recipe_state}, path)
    weights, report = read_official(path)
    assert weights.architecture == Architecture()
    assert len(report.read) == 380
    assert set(report.read) == {entry["key"] for entry in json.loads((parity / "keys.json").read_text())}


def test_unknown_keys_and_missing_counters_are_reported(small: Weights, tmp_path: Path) -> None:
    state = {name: value for name, value in small.state.items() if not name.endswith("num_batches_tracked")}
    torch.save({**state, "head.extra": torch.zeros(1)}, tmp_path / "a.pth")
    weights, report = read_official(tmp_path / "a.pth")
    counters = len(small.state) - len(state)
    assert report.unknown == ("head.extra",)
    assert len(report.counters) == counters
    assert "1 unknown keys left out (head.extra)" in report.summary()
    assert len(report.lines()) == len(small.state) + 1
    assert weights.state["backbone2.bn1.num_batches_tracked"] == 0


@pytest.mark.parametrize(
    "name", ["decode_head2.conv_seg.bias", "backbone2.bn1.running_var", "decode_head.flownet.conv_1x1.4.0.weight"]
)
def test_an_official_checkpoint_without_a_key_is_refused_and_the_key_named(
    small: Weights, tmp_path: Path, name: str
) -> None:
    torch.save({key: value for key, value in small.state.items() if key != name}, tmp_path / "a.pth")
    with pytest.raises(BadWeights, match=name):
        read_official(tmp_path / "a.pth")


def test_weights_of_other_networks_are_refused(small: Weights, tmp_path: Path) -> None:
    torch.save({"state_dict": resnet18(weights=None).state_dict()}, tmp_path / "a.pth")
    with pytest.raises(BadWeights, match=r"another network.*backbone2"):
        read_official(tmp_path / "a.pth")
    torch.save([1, 2], tmp_path / "b.pth")
    with pytest.raises(BadWeights, match="state_dict"):
        read_official(tmp_path / "b.pth")
    safetensors_io.save(tmp_path / "c.safetensors", {"w": torch.zeros(1)}, {"network": "osmn"})
    with pytest.raises(BadWeights, match="weights of osmn"):
        load_weights(tmp_path / "c.safetensors")
    wrong = {**small.state, "decode_head2.conv_seg.bias": torch.zeros(6)}
    torch.save(wrong, tmp_path / "d.pth")
    with pytest.raises(BadWeights, match="conv_seg"):
        read_official(tmp_path / "d.pth")


def test_weights_are_unchanged_by_official_export_and_import(small: Weights, tmp_path: Path) -> None:
    save_weights(tmp_path / "a.safetensors", small)
    ours = load_weights(tmp_path / "a.safetensors")
    assert (ours.architecture, ours.trained, ours.description) == (small.architecture, False, "untrained, seed 0")
    write_official(tmp_path / "b.pth", ours)
    again, _ = read_official(tmp_path / "b.pth")
    assert_same(again.state, small.state)
    assert set(load_torch(tmp_path / "b.pth")["meta"]) >= {"CLASSES", "PALETTE", "iter", "epoch"}
    save_weights(tmp_path / "half.safetensors", small, half=True)
    half = load_weights(tmp_path / "half.safetensors")
    assert half.state["backbone2.conv1.weight"].dtype == torch.float32
    assert (tmp_path / "half.safetensors").stat().st_size < 0.51 * (tmp_path / "a.safetensors").stat().st_size


def test_networks_that_the_released_code_lacks_are_written_in_our_format_only(tmp_path: Path) -> None:
    """The released code does not standardise features."""
    ours = untrained(Architecture("resnet18", width=8, head_width=8, motion_size=(64, 64), standardise=True))
    with pytest.raises(BadWeights, match="cannot standardise"):
        write_official(tmp_path / "a.pth", ours)
    assert not (tmp_path / "a.pth").exists()
    save_weights(tmp_path / "a.safetensors", ours)
    assert load_weights(tmp_path / "a.safetensors").network().motion.standardise


def test_the_exported_backbone_loads_into_torchvision(small: Weights, tmp_path: Path) -> None:
    save_backbone(tmp_path / "backbone.pth", small)
    state = load_torch(tmp_path / "backbone.pth")
    left = resnet18(weights=None).load_state_dict(state, strict=False)
    assert (left.missing_keys, left.unexpected_keys) == (["fc.weight", "fc.bias"], [])
    assert_same(state, backbone_state(small))
    save_backbone(tmp_path / "backbone.safetensors", small)
    assert_same(safetensors_io.load(tmp_path / "backbone.safetensors")[0], state)


def test_untrained_weights_depend_on_the_seed_alone() -> None:
    architecture = Architecture("resnet18", width=8, head_width=8)
    first = untrained(architecture).state
    torch.rand(1)  # Random numbers that are drawn in between must not matter.
    assert_same(untrained(architecture).state, first)
    other = untrained(architecture, seed=1).state
    assert not torch.equal(other["backbone2.conv1.weight"], first["backbone2.conv1.weight"])


def test_the_shipped_weights_are_trained_and_below_25_mb() -> None:
    weights = load_weights()
    assert weights.trained
    assert weights.architecture.backbone == "resnet18"
    assert int(weights.metadata["steps"]) > 0
    assert WEIGHTS.shipped is not None
    assert WEIGHTS.shipped.stat().st_size < 25_000_000
    assert load_weights("amd_objectness_demo").description == weights.description
