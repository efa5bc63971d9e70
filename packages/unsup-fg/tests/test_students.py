"""Students as segmenters: the contract, the official program's picture, ensembles, weights that do not fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from PIL import Image

from unsup_fg.checkpoints import load_weights, save_weights
from unsup_fg.method import UNSUP_FG
from unsup_fg.networks import build
from unsup_fg.settings import Architecture, NetworkName
from unsup_fg.students import Student, load, multiplied, official_segmentation
from vos_shared.contract_tests import MethodContract
from vos_shared.datasets import VideoSequence
from vos_shared.errors import BadWeights, UserError
from vos_shared.method import Frame, Method
from vos_shared.sequence_loop import segment_sequence
from vos_shared.testing import parity_folder
from vos_shared.video import Video

FRAME = np.random.default_rng(0).integers(0, 256, (48, 70, 3), np.uint8)


def write_weights(folder: Path, *networks: NetworkName) -> Path:
    torch.manual_seed(1)
    for name in networks:
        architecture = Architecture(name, 1 / 64)
        save_weights(folder / f"{name}.safetensors", build(architecture), architecture, {})
    return folder


class TestContract(MethodContract):
    @pytest.fixture
    def method(self) -> Method:
        return UNSUP_FG

    @pytest.fixture
    def weights(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        return write_weights(tmp_path_factory.mktemp("weights"), *get_args(NetworkName))

    @pytest.fixture
    def options(self) -> Mapping[str, Any]:
        return {"threshold": 0.0005}


@pytest.mark.parametrize("picture", ["car", "cat"])
def test_the_official_picture(picture: str) -> None:
    with np.load(parity_folder("unsup-fg") / "fixture_get_segmentation.npz") as arrays:
        final = arrays[f"final_{picture}"]
        found = official_segmentation(arrays[f"raw32_{picture}"], (final.shape[0], final.shape[1]))
        np.testing.assert_array_equal(found, final)
    with Image.open(parity_folder("unsup-fg") / f"get_segmentation_{picture}.png") as image:
        np.testing.assert_array_equal(found, np.array(image))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights"), "lowres", "dense-unet", "evalseg")


def soft_mask(weights: Path, variant: str, **options: Any) -> Any:
    segmenter = UNSUP_FG.load(weights, "cpu", variant=variant, **options)
    soft = segmenter.step(FRAME, soft_masks=True).soft_masks
    assert soft is not None
    return soft[0]


def test_multi_select_takes_one_of_its_students(weights: Path) -> None:
    chosen = soft_mask(weights, "unsup-fg+multi-select")
    single = [soft_mask(weights, f"unsup-fg+{name}") for name in ("dense-unet", "lowres")]
    assert min(np.abs(chosen - mask).max() for mask in single) < 0.02  # Resized twice.
    assert soft_mask(weights, "unsup-fg+multi").max() <= 1


@pytest.mark.parametrize("variant", ["unsup-fg+dense-unet", "unsup-fg+multi-select"])
def test_batches_give_the_soft_masks_of_single_frames(
    weights: Path, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the block norms of DenseU-Net use statistics at inference: those of each image."""
    video = Video.open(np.random.default_rng(0).integers(0, 256, (5, 48, 70, 3), np.uint8))
    batches: list[int] = []
    maps = Student.maps

    def counted(student: Student, frames: Sequence[Frame]) -> Any:
        batches.append(len(frames))
        return maps(student, frames)

    monkeypatch.setattr(Student, "maps", counted)

    def soft_masks(batch: int) -> list[Any]:
        found: list[Any] = []
        segment_sequence(
            UNSUP_FG.load(weights, "cpu", variant=variant, batch=batch),
            VideoSequence("noise", video, {}),
            lambda item: found.append(item.segmentation.soft_masks),
            supervision=UNSUP_FG.supervision,
            soft_masks=True,
        )
        return found

    np.testing.assert_allclose(soft_masks(2), soft_masks(1), atol=1e-5)
    assert set(batches) == {1, 2}


def test_products() -> None:
    masks = [np.array([0.5, 1.0, 0.0]), np.array([0.4, 0.4, 1.0])]
    np.testing.assert_allclose(multiplied(masks), [0.5, 1, 0])
    np.testing.assert_allclose(multiplied([np.array([1.0, 0.0]), np.array([0.0, 0.5])]), [0.5, 0.25])


def test_stretched_maps_span_all_values(weights: Path) -> None:
    plain = soft_mask(weights, "unsup-fg+lowres")
    assert plain.max() < 0.5
    stretched = soft_mask(weights, "unsup-fg+lowres", stretch=True)
    assert stretched.max() > 0.8


def test_weights_ask_for_a_threshold(weights: Path, tmp_path: Path) -> None:
    """Weights state the threshold of their maps; a threshold of the user wins."""
    snapshot = load_weights(weights / "lowres.safetensors")
    path = tmp_path / "asking.safetensors"
    save_weights(path, snapshot.network, snapshot.architecture, {"threshold": "0.25"})
    assert load(path, "cpu").settings.threshold == 0.25
    assert load(path, "cpu", threshold=0.75).settings.threshold == 0.75
    assert load(weights / "lowres.safetensors", "cpu").settings.threshold is None
    save_weights(path, snapshot.network, snapshot.architecture, {"threshold": "high"})
    with pytest.raises(BadWeights, match="threshold of high"):
        load(path, "cpu")


def test_the_weights_that_come_with_the_package_find_something() -> None:
    """The weights state network and threshold, and a frame of noise is not all foreground."""
    segmenter = load(None, "cpu")
    assert segmenter.info.trained
    assert segmenter.step(FRAME).mask.mean() < 1


def test_weights_that_do_not_fit_are_one_line(weights: Path, tmp_path: Path) -> None:
    cases: list[tuple[Path | None, str | None, str]] = [
        (None, "multi", "needs several networks"),
        (None, "lowres", "weights of dilate-unet; give weights of lowres"),
        (Path("nowhere"), None, "no weights file nowhere; known names are unsup_fg_demo"),
        (weights / "evalseg.safetensors", None, "weights of evalseg; give weights of lowres"),
        (weights / "lowres.safetensors", "dense-unet", "weights of lowres; give weights of dense-unet"),
        (weights / "lowres.safetensors", "multi", "several networks"),
        (tmp_path, "multi", "no weights of a student"),
        (weights, "dilate-unet", "dilate-unet"),
    ]
    for path, student, message in cases:
        with pytest.raises(BadWeights, match=message):
            load(path, "cpu", student=student)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="threshold"):
        load(weights, "cpu", threshold=2)


@pytest.mark.parametrize("side", [64, 256])
def test_maps_of_a_batch_are_those_of_its_frames_in_order(side: int) -> None:
    """A processor runs large images one by one."""
    torch.manual_seed(0)
    student = Student(build(Architecture("basic-unet", 1 / 32, side=side)), side, torch.device("cpu"), torch.float32)
    frames = list(np.random.default_rng(0).integers(0, 256, (3, 40, 50, 3), np.uint8))
    found = student.maps(frames)
    assert found.shape == (3, side, side)
    for frame, one in zip(frames, found, strict=True):
        np.testing.assert_allclose(student.maps([frame])[0], one, atol=1e-5)
    assert np.abs(found[0] - found[1]).max() > 1e-3
