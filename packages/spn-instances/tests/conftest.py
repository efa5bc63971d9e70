"""Networks, weights and data that several tests use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pytest
import torch

from spn_instances.checkpoints import save_weights
from spn_instances.networks import Architecture, Refinement, RefinementNet, ResNetF
from spn_instances.official import from_caffe, layers_of
from vos_shared.datasets.synthetic import write_new_davis_tree
from vos_shared.testing import recipe_noise

Model = TypeVar("Model", bound=torch.nn.Module)


def filled(model: Model) -> Model:
    """Fill a network with random values of a size that keeps its output small."""
    generator = torch.Generator().manual_seed(0)
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if name.endswith("running_var"):
            value.data.uniform_(0.9, 1.1, generator=generator)
        elif name.endswith(("norm.weight", "scale_res3", "scale_res4")):
            value.data.uniform_(0.15, 0.25, generator=generator)
        elif value.is_floating_point() and "kernel" not in name:
            value.data.normal_(0, 0.05, generator=generator)
    return model.eval()


@pytest.fixture
def tiny() -> ResNetF:
    """The official network with few blocks and channels."""
    return filled(ResNetF(Architecture("resnet", (1, 1, 4, 1), width=2, hidden=3)))


@pytest.fixture
def tiny_refinement() -> RefinementNet:
    return filled(RefinementNet(Refinement(2, width=2, channels=3)))


@pytest.fixture
def foreground_weights(tmp_path: Path, tiny: ResNetF) -> Path:
    """Weights file of `tiny`, as a parent net."""
    path = tmp_path / "weights" / "foreground.safetensors"
    save_weights(path, tiny, {"description": "a tiny parent"})
    return path


@pytest.fixture
def refinement_weights(tmp_path: Path, tiny_refinement: RefinementNet) -> Path:
    """Weights file of `tiny_refinement`."""
    path = tmp_path / "weights" / "refinement.safetensors"
    save_weights(path, tiny_refinement, {"description": "a tiny refinement"})
    return path


@pytest.fixture(scope="session")
def davis(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a data set with one clip of four small frames and two objects, in the split val."""
    root = tmp_path_factory.mktemp("data") / "davis"
    write_new_davis_tree(root, clips=1, frames=4, size=(48, 64), objects=2, seed=1)
    return root


Blobs = dict[str, list[npt.NDArray[np.float32]]]


def resnetf_blobs(model: ResNetF) -> Blobs:
    """Blobs of the official numbers' recipe, variant B, without upsamplers."""
    state = model.state_dict()
    return {
        name: [np.asarray(_value(name, kind, index, shape), np.float32) for index, shape in enumerate(shapes)]
        for name, kind, keys in layers_of(model)
        for shapes in [[tuple(state[key].shape) for key in keys] + ([(1,)] if kind == "BatchNorm" else [])]
    }


def _value(name: str, kind: str, blob: int, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    noise = recipe_noise(f"{name}/{blob}", shape)
    rules: dict[tuple[str, int], Callable[[], Any]] = {
        ("Convolution", 0): lambda: noise * np.sqrt(2 / np.prod(shape[1:])) * (0.02 if name == "score08" else 1),
        ("Convolution", 1): lambda: 0.01 * noise,
        ("BatchNorm", 0): lambda: 0.1 * noise,
        ("BatchNorm", 1): lambda: 0.1 * np.abs(noise) + 0.9,
        ("BatchNorm", 2): lambda: np.ones(1),
        ("Scale", 0): lambda: (1 + 0.1 * noise) * _calm(name),
        ("Scale", 1): lambda: 0.01 * noise,
    }
    return np.asarray(rules[kind, blob]())


def _calm(name: str) -> float:
    return 0.2 if name.endswith("branch2c") or name in ("scale_res4", "scale_res3") else 1.0


@pytest.fixture(scope="session")
def official_blobs() -> Blobs:
    with torch.device("meta"):
        return resnetf_blobs(ResNetF())


@pytest.fixture(scope="session")
def official_network(official_blobs: Blobs) -> ResNetF:
    model = ResNetF()
    model.load_state_dict(from_caffe(official_blobs, model, "recipe"))
    return model.eval()


@pytest.fixture(scope="session")
def official_refinement() -> Callable[[int], RefinementNet]:
    """Builds the refinement network with the weights of the recipe, for a number of classes."""

    def build(classes: int) -> RefinementNet:
        model = RefinementNet(Refinement(classes))
        state = model.state_dict()
        blobs = {
            name: [np.asarray(_value(name, kind, i, tuple(state[key].shape)), np.float32) for i, key in enumerate(keys)]
            for name, kind, keys in layers_of(model)
        }
        model.load_state_dict(from_caffe(blobs, model, "recipe"))
        return model.eval()

    return build
