"""The two views: equal to the official images and matrices, and consistent with each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dense_ulearn.augmentation import Similarity, make_views, scaled_size
from dense_ulearn.presets import Augmentation
from vos_shared.errors import UserError


def smooth_picture(size: tuple[int, int], seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


@pytest.mark.parametrize("case", range(6))
def test_second_view_and_matrices_equal_the_official_ones(parity: Path, case: int) -> None:
    with np.load(parity / "fixture_augment.npz") as official:
        flip, scale, size, _, top, left = official["cases"][case][:6]
        similarity = Similarity(bool(flip), scale, int(size), int(top), int(left))
        view = similarity.apply(Image.fromarray(official["base"]))
        np.testing.assert_array_equal(np.asarray(view), official[f"case{case}_image"])
        np.testing.assert_allclose(similarity.to_base(256), official[f"case{case}_affine_inv"], atol=1e-6)
        np.testing.assert_allclose(similarity.from_base(256), official[f"case{case}_affine_fwd"], atol=1e-6)


def test_scaled_sizes_equal_the_official_ones(parity: Path) -> None:
    with np.load(parity / "fixture_augment.npz") as official:
        for width, height, draw, new_width, new_height in official["scale_smallest"]:
            assert scaled_size((int(width), int(height)), 256 + int(64 * draw)) == (new_width, new_height)


@given(st.integers(0, 2**32 - 1))
def test_the_matrices_undo_each_other(seed: int) -> None:
    similarity = Similarity.draw(96, (0.5, 1.0), np.random.default_rng(seed))
    maps = [np.vstack([matrix, [0, 0, 1]]) for matrix in (similarity.to_base(96), similarity.from_base(96))]
    np.testing.assert_allclose(maps[0] @ maps[1], np.eye(3), atol=1e-5)


@given(st.integers(0, 2**32 - 1))
def test_the_zoom_never_leaves_the_crop(seed: int) -> None:
    similarity = Similarity.draw(64, (0.5, 1.0), np.random.default_rng(seed))
    assert 0 <= similarity.top <= 64 - similarity.size
    assert 0 <= similarity.left <= 64 - similarity.size
    assert 32 <= similarity.size <= 64


@pytest.mark.parametrize("seed", range(5))
def test_the_matrix_brings_the_main_view_into_register(seed: int) -> None:
    settings = Augmentation(crop=128, shorter_side=(128, 160))
    views = make_views([smooth_picture((300, 200))], settings, np.random.default_rng(seed))
    main, other = (torch.from_numpy(view).float() for view in (views.main, views.other))
    grid = F.affine_grid(torch.from_numpy(views.theta)[None], [1, 3, 128, 128], align_corners=False)
    warped = F.grid_sample(main, grid, align_corners=False, padding_mode="border")
    assert (warped - other).abs().mean() < 3  # Grey levels of 255.
    assert (main - other).abs().mean() > 3


def test_all_frames_of_a_clip_share_one_draw() -> None:
    picture = smooth_picture((120, 90))
    views = make_views([picture] * 3, Augmentation(crop=64, shorter_side=(64, 80)), np.random.default_rng(1))
    for view in (views.main, views.other):
        assert view.shape == (3, 3, 64, 64)
        assert (view == view[:1]).all()


def test_both_flips_are_drawn_half_of_the_time() -> None:
    """Mirroring of the clip, visible as the picture is brighter on its right, and of the second view."""
    ramp = Image.fromarray(np.tile(np.arange(60, dtype=np.uint8)[None, :, None] * 4, (40, 1, 3)))
    settings = Augmentation(crop=32, shorter_side=(32, 33))
    clips, views = [], []
    for seed in range(200):
        drawn = make_views([ramp], settings, np.random.default_rng(seed))
        clips.append(int(drawn.main[0, 0, 16, 4]) > int(drawn.main[0, 0, 16, -4]))
        views.append(float(drawn.theta[0, 0]) < 0)
    for flips in (clips, views):
        assert 70 < sum(flips) < 130
    assert 20 < sum(clip and view for clip, view in zip(clips, views, strict=True)) < 80


def test_a_centre_crop_is_the_centre() -> None:
    settings = Augmentation(crop=64, shorter_side=(64, 64), random_crop=False)
    picture = smooth_picture((128, 64))
    expected = np.asarray(picture)[:, 32:96].transpose(2, 0, 1)
    main = make_views([picture], settings, np.random.default_rng(0)).main[0]
    assert any((main == straight).all() for straight in (expected, expected[..., ::-1]))  # The view may be mirrored.


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (Augmentation(crop=256, shorter_side=(128, 256)), "less than the crop of 256"),
        (Augmentation(crop=64, shorter_side=(80, 70)), "falling"),
        (Augmentation(zoom=(0.5, 1.5)), "zooms in only"),
    ],
)
def test_settings_that_cannot_be_carried_out(settings: Augmentation, words: str) -> None:
    with pytest.raises(UserError, match=words):
        settings.check()
