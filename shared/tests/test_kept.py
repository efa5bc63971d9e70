"""Files of networks that were fine-tuned on one video."""

from pathlib import Path

import pytest
import torch
from torch import nn

from vos_shared.checkpoints import safetensors_io
from vos_shared.errors import BadWeights
from vos_shared.kept import ORIGIN, fingerprint, is_kept, kept_path
from vos_shared.training.optimisers import power_decay


def linear(value: float) -> nn.Linear:
    network = nn.Linear(2, 1)
    nn.init.constant_(network.weight, value)
    nn.init.zeros_(network.bias)
    return network


def test_a_fingerprint_changes_with_everything_that_a_network_was_made_from() -> None:
    same = fingerprint(linear(1), b"frame", (1, 0.5))
    assert same == fingerprint(linear(1), b"frame", (1, 0.5))
    others = [
        fingerprint(linear(2), b"frame", (1, 0.5)),
        fingerprint(linear(1), b"other", (1, 0.5)),
        fingerprint(linear(1), b"frame", (1, 0.25)),
        fingerprint(linear(1), b"frame"),
    ]
    assert len({same, *others}) == 5


def test_only_the_network_of_the_same_origin_is_kept(tmp_path: Path) -> None:
    origin = fingerprint("settings")
    path = kept_path(tmp_path, "bear", "1", origin)
    assert path.parent == tmp_path / "bear"
    assert not is_kept(path, origin)
    safetensors_io.save(path, {"weight": torch.ones(1)}, {ORIGIN: origin})
    assert is_kept(path, origin)
    with pytest.raises(BadWeights, match="is not a network that was kept here"):
        is_kept(path, fingerprint("other settings"))


def test_a_damaged_kept_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "1.safetensors"
    path.write_bytes(b"none")
    with pytest.raises(BadWeights, match="cannot be read"):
        is_kept(path, "")


def test_power_decay_falls_from_one_to_zero_and_stays_there() -> None:
    # Learning rates of a run of three steps that the official code of AMD prints, from 1e-4 to 1e-6 at power 0.9.
    rates = [(1e-4 - 1e-6) * power_decay(step, 3, 0.9) + 1e-6 for step in range(3)]
    assert rates == pytest.approx([1.000e-4, 6.973e-5, 3.783e-5], rel=1e-3)
    assert [power_decay(step, 2) for step in range(4)] == [1, 0.5, 0, 0]
