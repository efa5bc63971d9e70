"""Input on the device for all objects at once, compared with NumPy and Pillow for one object at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from osmn.frame_input import dilated_guides, normalise, resize_image, spatial_guides
from osmn.guides import Gaussian, Normalisation, dilated_guide, resize_frame
from osmn.merging import merge_soft_masks


@pytest.fixture
def masks() -> np.ndarray:
    """Masks: blobs of all sizes, a single pixel, empty, full."""
    rng = np.random.default_rng(0)
    masks = np.zeros((7, 48, 80), np.bool_)
    masks[0, 10:31, 5:22] = True
    masks[1, 3, 77] = True
    masks[2] = rng.random((48, 80)) > 0.9
    masks[3] = True
    masks[4, :2, :] = True
    masks[5, 20:22, 30:61:2] = True
    return masks


def one_by_one(mask: np.ndarray) -> np.ndarray:
    """As in training."""
    gaussian = Gaussian.of(mask)
    return np.zeros(mask.shape, np.float32) if gaussian is None else gaussian.render(mask.shape)


def test_spatial_guides_equal_those_one_by_one(masks: np.ndarray, device: torch.device) -> None:
    found = spatial_guides(torch.from_numpy(masks).to(device)).cpu().numpy()
    np.testing.assert_allclose(found[:, 0], np.stack([one_by_one(mask) for mask in masks]), atol=1e-6)
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


def test_objects_are_merged_on_the_device_as_argmax_over_the_background(device: torch.device) -> None:
    soft = np.random.default_rng(3).integers(0, 5, (3, 6, 8)).astype(np.float32) / 4
    ids = [5, 2, 9]
    order = np.argsort(ids)  # On a tie the background wins, then the lower id.
    expected = np.array([0, 2, 5, 9])[np.concatenate([np.full((1, 6, 8), 0.5, np.float32), soft[order]]).argmax(0)]
    np.testing.assert_array_equal(merge_soft_masks(torch.from_numpy(soft).to(device), ids).cpu().numpy(), expected)
