"""Visual and spatial guides against the official preprocessing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from osmn.frame_input import spatial_guides
from osmn.guides import Gaussian, Normalisation, crop_guide, guide_box, visual_guide


def spatial_guide(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """The guide of one mask, float32 [H, W]."""
    guide: npt.NDArray[np.float32] = spatial_guides(torch.from_numpy(mask)[None])[0, 0].numpy()
    return guide


@pytest.mark.parametrize("case", ["A", "B", "C0", "C1"])
def test_network_inputs_equal_the_official_ones(case: str, parity: Path) -> None:
    fixture = np.load(parity / "fixture.npz")
    frame, mask = fixture[f"in/{case}/first_rgb"], fixture[f"in/{case}/first_mask"] > 0
    crop, label = crop_guide(frame, mask)
    np.testing.assert_array_equal(crop, fixture[f"in/{case}/guide_crop_rgb"])
    np.testing.assert_array_equal(label, fixture[f"in/{case}/guide_crop_mask"] > 0)
    normalise = Normalisation(0.00787)
    guide = visual_guide(crop, label, normalise).transpose(1, 2, 0)
    np.testing.assert_allclose(guide, fixture[f"in/{case}/guide"][0], atol=1e-6)
    image = normalise(fixture[f"in/{case}/cur_rgb"]).transpose(1, 2, 0)
    np.testing.assert_allclose(image, fixture[f"in/{case}/image"][0], atol=1e-6)
    spatial = spatial_guide(fixture[f"in/{case}/prev_mask"] > 0)
    np.testing.assert_allclose(spatial, fixture[f"in/{case}/spatial"][0, :, :, 0], atol=1e-6)


def test_aspect_keeping_guide_and_thin_object(parity: Path) -> None:
    fixture, preprocess = np.load(parity / "fixture.npz"), np.load(parity / "fixture_preprocess.npz")
    crop, label = crop_guide(fixture["in/A/first_rgb"], fixture["in/A/first_mask"] > 0, keep_aspect=True)
    np.testing.assert_array_equal(crop, preprocess["test_aspect_1_im"])
    np.testing.assert_array_equal(label, preprocess["test_aspect_1_lab"] > 0)
    np.testing.assert_allclose(spatial_guide(preprocess["thin_mask"] > 0), preprocess["gauss_thin"], atol=1e-6)


def test_one_pixel_object_has_a_guide() -> None:
    frame = np.full((20, 30, 3), 200, np.uint8)
    for row, column in ((0, 0), (19, 29), (7, 11)):
        mask = np.zeros((20, 30), np.bool_)
        mask[row, column] = True
        assert guide_box(mask) == (column, row, column + 1, row + 1)
        crop, label = crop_guide(frame, mask)
        assert crop.shape == (224, 224, 3)
        assert label.all()


def test_gaussian_sits_on_the_median_and_empty_masks_guide_nothing() -> None:
    mask = np.zeros((40, 60), np.bool_)
    assert Gaussian.of(mask) is None
    assert not spatial_guide(mask).any()
    mask[10:21, 30:51] = True
    guide = spatial_guide(mask)
    assert divmod(int(guide.argmax()), 60) == (15, 40)
    assert guide.max() == 1
