"""Pictures of the objective."""

from __future__ import annotations

import numpy as np
import torch

from dense_ulearn.augmentation import Views
from dense_ulearn.losses import Offsets, training_losses
from dense_ulearn.pictures import label_colours, segmentation_picture, training_picture
from dense_ulearn.presets import ObjectiveSettings


def test_labels_have_colours_of_their_own() -> None:
    assert len(label_colours(128).unique(dim=0)) > 100


def test_the_grid_shows_both_views_and_equal_columns_for_a_perfect_network() -> None:
    frames, side = 2, 64
    views = Views(
        torch.full((1, frames, 3, side, side), 40, dtype=torch.uint8),
        torch.full((1, frames, 3, side, side), 90, dtype=torch.uint8),
        torch.eye(2, 3)[None],
    )
    keys = torch.eye(64).view(1, 1, 64, 8, 8).repeat(1, frames, 1, 1, 1)  # All cells differ.
    identity = torch.eye(2, 3).expand(1, frames, 2, 3)
    offsets = Offsets(*(torch.zeros(1, dtype=torch.long) for _ in range(4)))
    losses = training_losses(keys, keys, identity, identity, offsets, ObjectiveSettings())
    picture = torch.from_numpy(training_picture(views, keys, losses, ObjectiveSettings()))
    assert picture.shape == (frames * side, 5 * side, 3)
    marked, warped, other, labels, assignment = picture.split(side, 1)
    assert (marked[:side, :, 0] > 100).all()  # Every cell of frame 0 is an anchor.
    assert (marked[side:] == 40).all()
    assert (warped == 40).all()
    assert (other == 90).all()
    assert (labels.int() - assignment.int()).abs().max() <= 1
    assert (labels[:side] == labels[side:]).all()


def test_segmented_frames_are_rows_of_frame_truth_and_found() -> None:
    frame, mask = np.full((500, 80, 3), 50, np.uint8), np.zeros((500, 80), np.uint8)
    mask[:, 40:] = 1
    picture = segmentation_picture([frame, frame], [mask, mask], [mask, mask * 0])
    height, width = -(-500 // 3), -(-80 // 3)
    assert picture.shape == (2 * height, 3 * width, 3)
    plain, true, found = np.split(picture, 3, axis=1)
    assert (plain == 50).all()
    assert (true[:height] == found[:height]).all()
    assert (true[:, -5] != 50).any(axis=1).all()
    assert (found[height:] == 50).all()
