"""Shared fixtures: official weights and numbers from VOS_PARITY, a tiny network, tiny data, the command."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from osmn.checkpoints import LITE_SCALE, save_weights
from osmn.cli import main
from osmn.data import StillImages
from osmn.networks import OSMN, VARIANTS, Architecture, initialise
from osmn.networks.lite import LiteVisualModulator
from osmn.official import from_official
from vos_shared.datasets.synthetic import write_davis_tree
from vos_shared.masks import write_mask
from vos_shared.testing import bilinear_kernel, exit_code, parity_folder, recipe_noise

Array = npt.NDArray[Any]
Run = Callable[..., int]


@pytest.fixture(scope="session")
def parity() -> Path:
    return parity_folder("osmn")


@functools.cache
def recipe_value(name: str, shape: tuple[int, ...]) -> Array:
    """The weight that the recipe of the parity folder makes from a name."""
    leaf = name.rpartition("/")[2]
    if name == "global_step":
        return np.array(0, np.int32)
    if "-up/" in name:
        return bilinear_kernel(shape[0], shape[2]).astype(np.float32)
    noise = recipe_noise(name, shape)
    if leaf in {"weights", "depthwise_weights"}:
        fan_in = shape[0] * shape[1] * (shape[2] if leaf == "weights" else 1)
        noise *= np.sqrt(2 / fan_in)
    elif leaf == "gamma":
        noise = 1 + 0.1 * noise
    elif leaf == "moving_variance":
        noise = 0.9 + 0.1 * np.abs(noise)
    else:
        noise = 0.01 * noise
    return noise.astype(np.float32)


@pytest.fixture(scope="session")
def official_arrays(parity: Path) -> Callable[[str], dict[str, Array]]:
    """All variables of an official checkpoint of a variant."""
    keys = json.loads((parity / "keys.json").read_text())
    return lambda variant: {
        entry["name"]: recipe_value(entry["name"], tuple(entry["shape"])) for entry in keys[variant]
    }


@pytest.fixture(scope="session")
def official_model(official_arrays: Callable[[str], dict[str, Array]]) -> Callable[[str], OSMN]:
    """A model of a variant with the official weights, in eval mode."""

    def build(variant: str) -> OSMN:
        model = OSMN.unfilled(VARIANTS[variant])
        model.load_state_dict(from_official(official_arrays(variant), model))
        return model.eval()

    return build


@pytest.fixture(scope="session")
def osvos(official_model: Callable[[str], OSMN]) -> OSMN:
    """The default model with the official weights, for tests that do not train it."""
    return official_model("osvos")


@pytest.fixture(scope="module")
def all_cores() -> Iterator[None]:
    """Use as many threads as there are cores, which networks of full size need, unlike tiny ones."""
    threads = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    yield
    torch.set_num_threads(threads)


def seeing(model: OSMN) -> OSMN:
    """Randomise the last layers of the visual modulator; as initialised, all objects have the same modulation."""
    assert isinstance(model.modulator, LiteVisualModulator)
    for head in model.modulator.heads:
        torch.nn.init.normal_(head.get_parameter("weight"), std=0.1)
    return model


@pytest.fixture
def tiny_model() -> OSMN:
    """Lite with small heads and random weights."""
    torch.manual_seed(0)
    return seeing(initialise(OSMN(Architecture("lite", head_width=8))))


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of ours: lite with small heads, as initialised."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    model = seeing(initialise(OSMN(Architecture("lite", head_width=8))))
    save_weights(path, model, LITE_SCALE, {"description": "made in a test", "trained": "false"})
    return path


@pytest.fixture
def run() -> Run:
    """Run the command line with these arguments; the exit code."""
    return lambda *arguments: exit_code(main, "osmn", *arguments)


@pytest.fixture(scope="module")
def davis(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("davis")
    write_davis_tree(root, clips=2, frames=4, size=(48, 80))
    return root


@pytest.fixture(scope="module")
def youtube(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """YouTube-VOS with a train and a valid part; in ``late`` the second object appears in the second frame."""
    root = tmp_path_factory.mktemp("youtube")
    rng = np.random.default_rng(0)
    names = ["00000", "00005", "00010"]
    videos = {"early": {"1": names}, "late": {"1": names, "2": names[1:]}}
    for split in ("train", "valid"):
        for video, objects in videos.items():
            frames, masks = (root / split / folder / video for folder in ("JPEGImages", "Annotations"))
            frames.mkdir(parents=True)
            masks.mkdir(parents=True)
            for t, name in enumerate(names):
                Image.fromarray(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(frames / f"{name}.jpg")
                mask = np.zeros((48, 64), np.uint8)
                for key, listed in objects.items():
                    if name in listed and (split == "train" or name == listed[0]):
                        mask[10:30, 30 * int(key) - 25 + t : 30 * int(key) - 5 + t] = int(key)
                if mask.any():
                    write_mask(masks / f"{name}.png", mask)
        meta = {
            "videos": {
                video: {"objects": {key: {"category": "thing", "frames": listed} for key, listed in objects.items()}}
                for video, objects in videos.items()
            }
        }
        (root / split / "meta.json").write_text(json.dumps(meta))
    return root


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A folder ``photographs`` of one photograph with the mask of its object."""
    root = tmp_path / "photographs"
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    mask = np.zeros((50, 70), np.uint8)
    mask[10:30, 20:50] = 255
    Image.fromarray(rng.integers(0, 255, (50, 70, 3), dtype=np.uint8)).save(root / "images" / "one.png")
    Image.fromarray(mask).save(root / "masks" / "one.png")
    return root


@pytest.fixture
def stills(tmp_path: Path) -> StillImages:
    """Three photographs of noise with an object of different height each."""
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / "stills" / folder).mkdir(parents=True)
    for number in range(3):
        mask = np.zeros((50, 70), np.uint8)
        mask[10 : 30 + number, 20:50] = 255
        Image.fromarray(rng.integers(0, 255, (50, 70, 3), dtype=np.uint8)).save(
            tmp_path / f"stills/images/{number}.png"
        )
        Image.fromarray(mask).save(tmp_path / f"stills/masks/{number}.png")
    return StillImages.from_folder(tmp_path / "stills")
