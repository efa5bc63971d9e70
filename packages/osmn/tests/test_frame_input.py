"""Input on the device, for all objects at once, against the same one by one in NumPy and Pillow."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from osmn.frame_input import dilated_guides, merge, normalise, resize_image, spatial_guides
from osmn.guides import Normalisation, dilated_guide, resize_frame, spatial_guide
from osmn.merging import merge_soft_masks


@pytest.fixture
def masks() -> np.ndarray:
    """Blobs of all sizes, a single pixel, none, all."""
    rng = np.random.default_rng(0)
    masks = np.zeros((7, 48, 80), np.bool_)
    masks[0, 10:31, 5:22] = True
    masks[1, 3, 77] = True
    masks[2] = rng.random((48, 80)) > 0.9
    masks[3] = True
    masks[4, :2, :] = True
    masks[5, 20:22, 30:61:2] = True
    return masks


def test_spatial_guides_equal_those_one_by_one(masks: np.ndarray, device: torch.device) -> None:
    found = spatial_guides(torch.from_numpy(masks).to(device)).cpu().numpy()
    np.testing.assert_allclose(found[:, 0], np.stack([spatial_guide(mask) for mask in masks]), atol=1e-6)
    assert not found[6].any()


def test_dilated_guides_equal_those_one_by_one(masks: np.ndarray, device: torch.device) -> None:
    found = dilated_guides(torch.from_numpy(masks).to(device)).cpu().numpy()
    np.testing.assert_array_equal(found[:, 0], np.stack([dilated_guide(mask) for mask in masks]))


@pytest.mark.parametrize("size", [(48, 80), (31, 52), (64, 100)])
def test_frames_are_resized_as_pillow_does(size: tuple[int, int], device: torch.device) -> None:
    frame = np.random.default_rng(1).integers(0, 256, (48, 80, 3), np.uint8)
    pixels = torch.from_numpy(frame).to(device).permute(2, 0, 1)
    found = resize_image(pixels, size).permute(1, 2, 0).cpu().numpy()
    assert np.abs(found.astype(int) - resize_frame(frame, size)).max() <= 1


def test_pixels_are_normalised_as_in_training(device: torch.device) -> None:
    frame = np.random.default_rng(2).integers(0, 256, (9, 7, 3), np.uint8)
    found = normalise(torch.from_numpy(frame).to(device).permute(2, 0, 1), 0.00787)
    np.testing.assert_allclose(found[0].cpu().numpy(), Normalisation(0.00787)(frame), atol=1e-6)


def test_objects_are_merged_with_ties_to_the_lower_id(device: torch.device) -> None:
    rng = np.random.default_rng(3)
    soft = {object_id: (rng.integers(0, 5, (6, 8)) / 4).astype(np.float32) for object_id in (5, 2)}
    stacked = torch.from_numpy(np.stack(list(soft.values()))).to(device)
    np.testing.assert_array_equal(merge(stacked, list(soft)).cpu().numpy(), merge_soft_masks(soft, (6, 8)))
