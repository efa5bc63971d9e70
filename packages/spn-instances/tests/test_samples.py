"""Samples: the official augmentation, and samples that depend on the seed alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spn_instances.augmentation import Draw, augment, augment_label
from spn_instances.data import Mixture, Pairs, Photographs, TrainingSamples
from spn_instances.images import byte_scaled_input, network_input
from spn_instances.refinement_data import ImageMasks, RefinementSamples, degrade
from spn_instances.settings import SampleSettings
from vos_shared.errors import BadDataset
from vos_shared.testing import parity_folder


@pytest.mark.parametrize("number", [0, 1, 2])
def test_augmentation_has_the_official_geometry(number: int) -> None:
    arrays = np.load(parity_folder("spn-instances") / "fixture_aug.npz")
    scale, rotation, down, across, flip, crop_x, crop_y = arrays[f"par{number}"][:7].tolist()
    draw = Draw(scale, rotation, (int(across), int(down)), bool(flip), (crop_x, crop_y))
    image, label, size = arrays["src_img"], arrays["src_label"], (480, 854)
    np.testing.assert_array_equal(augment(image, draw, size, smooth=False), arrays[f"img{number}"])
    official, aligned = (augment_label(label, draw, size, aligned=on) for on in (False, True))
    np.testing.assert_array_equal(official, arrays[f"label_official{number}"])
    np.testing.assert_array_equal(aligned, arrays[f"label_aligned{number}"])


def test_values_of_resized_frames_are_stretched_as_in_the_released_code() -> None:
    arrays = np.load(parity_folder("spn-instances") / "fixture_preproc.npz")
    ours = byte_scaled_input(arrays["turtle_rgb"], (480, 854)).numpy()
    np.testing.assert_allclose(ours, arrays["turtle_input_official"], atol=1)


def noise_and_box() -> tuple[np.ndarray, np.ndarray]:
    """A frame of noise and the label of a box."""
    frame = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    mask = np.zeros((48, 64), np.uint8)
    mask[10:30, 20:50] = 1
    return frame, mask


def test_images_and_labels_stay_aligned_by_default() -> None:
    _, mask = noise_and_box()
    frame = np.repeat(mask[..., None] * np.uint8(255), 3, axis=2)
    for seed in range(20):
        draw = Draw.sample(np.random.default_rng(seed), SampleSettings(), (48, 64))
        inside = augment(frame, draw, (48, 64))[..., 0] > 127
        label = augment_label(mask, draw, (48, 64)) > 0
        assert (inside != label).mean() < 0.03, "they differ at most along the border"


def test_samples_depend_on_seed_step_and_slot_alone() -> None:
    samples = TrainingSamples([noise_and_box()], SampleSettings(size=None), seed=3)
    for key in ((0, 0), (5, 1)):
        torch.testing.assert_close(samples[key], samples[key])
    assert not torch.equal(samples[0, 0]["image"], samples[0, 1]["image"])


def test_rare_samples_are_not_augmented() -> None:
    frame, mask = noise_and_box()
    plain = TrainingSamples([(frame, mask)], SampleSettings(size=None, rare=0), seed=0)[0, 0]
    torch.testing.assert_close(plain["image"], network_input(frame))
    assert torch.equal(plain["label"], torch.from_numpy(mask > 0))
    compat = TrainingSamples([(frame, mask)], SampleSettings(size=None, rare=0, compat=True), seed=0)[0, 0]
    assert compat["image"].min() == 0
    assert compat["image"].max() == 255


def test_the_released_code_never_takes_the_last_entry(tmp_path: Path) -> None:
    names = []
    for value in (10, 20):
        Image.fromarray(np.full((20, 20, 3), value, np.uint8)).save(tmp_path / f"{value}.png")
        Image.fromarray(np.ones((20, 20), np.uint8)).save(tmp_path / f"m{value}.png")
        names.append(f"/{value}.png /m{value}.png")
    (tmp_path / "list.txt").write_text("\n".join(names))
    pairs = Pairs.of_list(tmp_path / "list.txt", tmp_path)
    settings = SampleSettings(size=None, rare=0)
    ours, theirs = (
        {float(TrainingSamples(pairs, chosen, 0)[step, 0]["image"].max()) for step in range(12)}
        for chosen in (settings, replace(settings, compat=True))
    )
    assert len(ours) == 2
    assert len(theirs) == 1


def test_lists_that_name_missing_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("/a.jpg /b.png\n")
    with pytest.raises(BadDataset, match="2 files are not there"):
        Pairs.of_list(path, tmp_path)
    path.write_text("bear\n")
    with pytest.raises(BadDataset, match="lines other than"):
        Pairs.of_list(path, tmp_path)


def write_photographs(root: Path, **objects: tuple[slice, slice]) -> None:
    """Write black photographs, 60 high and 40 wide, with a bright object each, and their masks."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for name, window in objects.items():
        mask = np.zeros((60, 40), np.uint8)
        mask[window] = 1
        Image.fromarray(mask).save(root / "masks" / f"{name}.png")
        Image.fromarray(np.repeat(mask[..., None] * 200, 3, 2)).save(root / "images" / f"{name}.png")


def test_photographs_are_cropped_around_their_object_to_the_shape_of_frames(tmp_path: Path) -> None:
    write_photographs(tmp_path / "two", low=np.s_[50:58, 10:30], small=np.s_[3:6, 3:6])
    photographs = Photographs([tmp_path / "two"])
    assert len(photographs) == 1, "the small object is left out"
    frame, label = photographs[0]
    assert label.shape == (22, 40), "480 / 854 of the width"
    assert label.sum() == 8 * 20
    np.testing.assert_array_equal(frame[..., 0] > 0, label > 0)
    write_photographs(tmp_path / "one", small=np.s_[3:6, 3:6])
    with pytest.raises(BadDataset, match="no photograph has an object of 4% of its area"):
        Photographs([tmp_path / "one"])


def test_sources_of_a_mixture_are_drawn_equally_often() -> None:
    frames = [(np.full((4, 4, 3), value, np.uint8), np.ones((4, 4), np.uint8)) for value in range(5)]
    mixture = Mixture([frames[:4], frames[4:]])
    found = [int(mixture[index][0][0, 0, 0]) for index in range(len(mixture))]
    assert sorted(found) == [0, 1, 2, 3, 4, 4, 4, 4]


def test_coarse_masks_resemble_the_truth_and_differ_from_it() -> None:
    mask = np.zeros((120, 160), np.bool_)
    mask[30:90, 40:120] = True
    shares = []
    for seed in range(20):
        coarse = degrade(mask, np.random.default_rng(seed)) > 0.5
        shares.append((coarse & mask).sum() / (coarse | mask).sum())
    assert 0.5 < np.mean(shares) < 0.95


def test_refinement_samples_show_object_and_background(tmp_path: Path) -> None:
    write_photographs(tmp_path, a=np.s_[20:45, 8:30])
    samples = RefinementSamples(ImageMasks.from_folder(tmp_path), crop=32, seed=0)
    for step in range(5):
        sample = samples[step, 0]
        assert sample["image"].shape == (3, 32, 32)
        assert set(sample["label"].unique().tolist()) == {0, 1}
        torch.testing.assert_close(sample["coarse"].sum(0), torch.ones(32, 32))
    with pytest.raises(BadDataset, match="no photographs"):
        ImageMasks.from_folder(tmp_path / "images")
