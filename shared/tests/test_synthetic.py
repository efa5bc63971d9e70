"""Synthetic clips: equal seeds give equal clips, ids are exact, and the folder is a DAVIS data set."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vos_shared.datasets import davis2016, davis2017, synthetic
from vos_shared.datasets.synthetic import clip, write_davis_tree, write_new_davis_tree
from vos_shared.datasets.synthetic_rendering import Body, Scene, render
from vos_shared.datasets.synthetic_textures import GROUNDS, cells, noise, sample
from vos_shared.errors import UserError
from vos_shared.masks import ids_of, write_mask
from vos_shared.method import ObjectMask


def test_equal_seeds_give_equal_clips_and_others_do_not() -> None:
    (frames, masks), (again, masks_again), (other, _) = (clip(seed, frames=4, size=(48, 80)) for seed in (3, 3, 4))
    assert np.array_equal(frames, again)
    assert np.array_equal(masks, masks_again)
    assert not np.array_equal(frames, other)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 1000),
    frames=st.integers(1, 3),
    size=st.tuples(st.integers(32, 70), st.integers(32, 90)),
    objects=st.integers(1, 4),
)
def test_shapes_and_ids(seed: int, frames: int, size: tuple[int, int], objects: int) -> None:
    pictures, masks = clip(seed, frames=frames, size=size, objects=objects)
    assert pictures.shape == (frames, *size, 3)
    assert masks.shape == (frames, *size)
    assert pictures.dtype == masks.dtype == np.uint8
    assert ids_of(masks[0]) == list(range(1, objects + 1))
    assert set(np.unique(masks)) <= set(range(objects + 1))


@pytest.mark.parametrize("ground", GROUNDS)
def test_every_ground_is_drawn_with_detail_and_without_clipping(ground: str) -> None:
    frames, _ = clip(1, frames=1, size=(96, 160), ground=ground)
    assert frames.std() > 20
    assert (frames == 255).all(axis=-1).mean() < 0.02
    assert (frames == 0).all(axis=-1).mean() < 0.02


def test_objects_and_ground_move() -> None:
    frames, masks = clip(0, frames=8, size=(96, 160))
    change = np.abs(frames[7].astype(int) - frames[0]).mean(axis=-1)
    assert change[(masks[0] == 0) & (masks[7] == 0)].mean() > 5
    for k in ids_of(masks[0]):
        first, last = (np.argwhere(masks[t] == k).mean(axis=0) for t in (0, 7))
        assert np.linalg.norm(last - first) > 2


def disc(y: float, x: float, radius: float) -> Body:
    """A white body without bumps or motion."""
    coat = np.zeros((16, 16, 5), dtype=np.float32)
    coat[..., :3] = 1
    still = np.zeros(4)
    return Body(radius, np.array([[y, x]]), np.zeros(1), swing=still, phase=still, pulse=still, coat=coat, gloss=0)


def test_ids_are_those_of_the_pixel_centres_and_the_picture_agrees() -> None:
    y, x = np.indices((40, 60))
    lower, upper = np.hypot(y - 20.3, x - 22.1), np.hypot(y - 16.8, x - 35.4)
    black = np.zeros((40, 60, 3), dtype=np.float32)
    bodies = disc(20.3, 22.1, 11.2), disc(16.8, 35.4, 9.7)
    picture, mask = render(Scene((40, 60), black, np.array([[0.0, 0.0, 0.0, 1.0]]), bodies), 0)
    assert np.array_equal(mask, np.where(upper < 9.7, 2, np.where(lower < 11.2, 1, 0)))
    assert (picture[(upper > 10.3) & (lower > 11.8)] == 0).all()
    assert (picture[mask > 0] > 0.1).all()
    # The edge is blended: a pixel that a body covers only in part is darker than its neighbours within.
    rim = (np.abs(upper - 9.7) < 0.3) & (lower > 12)
    assert 0.1 < picture[rim].mean() < 0.7 * picture[(upper < 9) & (upper > 8)].mean()


def test_late_objects_come_and_leaving_ones_go() -> None:
    _, masks = clip(2, frames=12, size=(60, 90), objects=3, late=1, leaving=1)
    seen = [set(ids_of(mask)) for mask in masks]
    assert seen[0] == {1, 2}
    assert seen[6] >= {2}
    assert seen[-1] == {2, 3}
    assert all(3 not in ids for ids in seen[:4])
    assert all(1 not in ids for ids in seen[-4:])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objects": 0}, "a clip of 0 objects"),
        ({"objects": 255}, "a clip of 255 objects"),
        ({"frames": 0}, "0 frames of 240x432 is too small"),
        ({"size": (8, 300)}, "8x300 is too small"),
        ({"objects": 2, "late": 2}, "2 late and 0 leaving of 2 objects"),
        ({"objects": 2, "late": 1, "leaving": 2}, "1 late and 2 leaving of 2 objects"),
        ({"frames": 2, "late": 1}, "no time for objects to come or go"),
        ({"ground": "lava"}, "no ground is called 'lava'"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_impossible_clips_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        clip(**{"seed": 0, **settings})


def test_tree_is_a_davis_data_set(tmp_path: Path) -> None:
    names = write_davis_tree(tmp_path, clips=2, train_clips=1, frames=3, size=(40, 64), seed=5, objects=2)
    assert [sequence.name for sequence in davis2017(tmp_path)] == names[:2]
    assert [sequence.name for sequence in davis2016(tmp_path, "train")] == names[2:]
    frames, masks = clip(50_001, frames=3, size=(40, 64), objects=2, ground=names[1].split("-")[0])
    sequence = davis2017(tmp_path)[1]
    for name, mask in zip(sequence.frame_names, masks, strict=True):
        assert np.array_equal(np.asarray(sequence.annotation(name)), mask)
    assert np.abs(np.stack(list(sequence.video)).astype(int) - frames).mean() < 6  # JPEG.
    assert (tmp_path / "JPEGImages" / "40p").is_dir()


def test_noise_is_even_and_repeats_without_a_seam() -> None:
    field = noise(np.random.default_rng(0), (128, 128), 4)
    assert np.allclose(np.quantile(field, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.08)
    across_seam = np.abs(field[:, 0] - field[:, -1]).mean()
    inside = np.abs(np.diff(field, axis=1)).mean()
    assert across_seam < 2 * inside


def test_sampling_at_pixels_gives_the_pixels_and_repeats() -> None:
    texture = np.random.default_rng(0).random((5, 7, 3), dtype=np.float32)
    y, x = np.indices((5, 7), dtype=np.float32)
    assert np.array_equal(sample(texture, y, x), texture)
    assert np.array_equal(sample(texture, y - 10, x + 21), texture)
    between = sample(texture, y[:1, :1], x[:1, :1] + 0.25)
    assert np.allclose(between, 0.75 * texture[0, 0] + 0.25 * texture[0, 1])


def test_cells_are_those_of_the_nearest_point() -> None:
    parts = cells(np.random.default_rng(0), (40, 60), 4)
    assert parts.index.shape == (40, 60)
    assert (parts.border >= 0).all()
    # A pixel next to another cell is close to the border, by the triangle inequality: two pixels of 10 a cell.
    at_border = parts.index[:, 1:] != parts.index[:, :-1]
    assert parts.border[:, 1:][at_border].max() <= 0.2 + 1e-6


CLIPS: dict[str, Any] = {"clips": 2, "frames": 3, "size": (48, 64)}


def test_clips_are_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, written = tmp_path / "clips", 0

    def fill(path: Path, mask: ObjectMask) -> None:
        nonlocal written
        written += 1
        if written == 5:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write_mask(path, mask)

    with monkeypatch.context() as patch:
        patch.setattr(synthetic, "write_mask", fill)
        with pytest.raises(OSError, match="No space left"):
            write_new_davis_tree(root, **CLIPS)
    assert not list(tmp_path.iterdir())
    abandoned = tmp_path / ".partial" / "clips.12ab34cd"  # Left by a killed process.
    (abandoned / "JPEGImages").mkdir(parents=True)
    root.mkdir()
    names = write_new_davis_tree(root, **CLIPS)
    assert [sequence.name for sequence in davis2017(root)] == names
    assert [path.name for path in tmp_path.iterdir()] == ["clips"]
    with pytest.raises(UserError, match="is there already and not empty"):
        write_new_davis_tree(root, **CLIPS)


def test_of_two_that_write_the_same_clips_one_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def both(root: Path, **settings: Any) -> list[str]:
        write_davis_tree(tmp_path / "clips", **settings)
        return write_davis_tree(root, **settings)

    monkeypatch.setattr(synthetic, "write_davis_tree", both)
    with pytest.raises(UserError, match="written by another process meanwhile"):
        write_new_davis_tree(tmp_path / "clips", **CLIPS)
    assert len(davis2017(tmp_path / "clips")) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["clips"]
