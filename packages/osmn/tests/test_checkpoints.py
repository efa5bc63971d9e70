"""Our weights files: files of the first version, with other names, are read."""

from pathlib import Path

import pytest
import torch

from osmn.checkpoints import current_name, read_weights, save_weights
from osmn.networks import OSMN, VARIANTS
from vos_shared.checkpoints import safetensors_io

RENAMED = {
    "modulator.Conv2d_0.norm.bias": "modulator.stem.norm.bias",
    "seg.Conv2d_13_pointwise.conv.weight": "seg.blocks.12.pointwise.conv.weight",
    "modulator_sp.conv3.weight": "modulator_sp.branches.conv3.weight",
    "seg.head.fc6_1.bias": "seg.branches.0.fc6.bias",
    "seg.head.fc8_4.weight": "seg.branches.3.fc8.weight",
    "seg.head.fc8_voc12_4.weight": "seg.branches.3.fc8.weight",
}


@pytest.mark.parametrize(("earlier", "name"), RENAMED.items())
def test_earlier_names_are_known(earlier: str, name: str) -> None:
    assert current_name(earlier) == name


@pytest.mark.parametrize("variant", VARIANTS)
def test_present_names_stay(variant: str) -> None:
    keys = list(OSMN.unfilled(VARIANTS[variant]).state_dict())
    assert [current_name(key) for key in keys] == keys


def test_a_file_with_earlier_names_gives_the_same_network(tiny_model: OSMN, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(path, tiny_model, 0.00787, {})
    state, metadata = safetensors_io.load(path)

    def earlier(key: str) -> str:
        network, *rest = key.split(".")
        match rest:
            case ["stem", *tail]:
                return ".".join([network, "Conv2d_0", *tail])
            case ["blocks", number, kind, *tail]:
                return ".".join([network, f"Conv2d_{int(number) + 1}_{kind}", *tail])
        return key

    old = {earlier(key): value for key, value in state.items()}
    assert old.keys() != state.keys()
    safetensors_io.save(path, old, metadata)
    read = read_weights(path).model.state_dict()
    for key, value in tiny_model.state_dict().items():
        torch.testing.assert_close(read[key], value, atol=0, rtol=0)
