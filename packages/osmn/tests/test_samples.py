"""Training samples: sources, guides and their augmentation."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from osmn.augmentation import MaskDraw, SpatialDraw, VisualDraw, augment_visual, crop_sides, perturb_mask
from osmn.data import (
    CocoImages,
    Example,
    Mixture,
    StillImages,
    TrainingSamples,
    VideoFrames,
    _still,
    make_sample,
)
from osmn.guides import MEAN_BGR, Gaussian
from osmn.presets import GuideAugmentation, SampleSettings
from vos_shared.datasets import VideoSequence
from vos_shared.datasets.davis import davis2016, davis2017
from vos_shared.datasets.synthetic import write_davis_tree
from vos_shared.errors import BadDataset
from vos_shared.masks import write_mask
from vos_shared.video import Video

TINY = SampleSettings(size=(48, 64), scales=(1.0, 0.75), scale_value=0.00787)


@pytest.mark.parametrize("seed", [1, 2])
def test_guide_augmentation_equals_the_official_one(seed: int, parity: Path) -> None:
    fixture, preprocess = np.load(parity / "fixture.npz"), np.load(parity / "fixture_preprocess.npz")
    random.seed(seed)
    sides = np.random.RandomState(seed).uniform(-0.1, 0.1, 4)
    draw = VisualDraw(tuple(sides.tolist()), None, random.uniform(-10, 10), random.random() > 0.5)
    frame, mask = fixture["in/A/first_rgb"], fixture["in/A/first_mask"] > 0
    crop, label = augment_visual(frame, mask, draw)
    # Nearest-neighbour rotation rounds halves its own way in each library.
    assert (crop != preprocess[f"train_{seed}_im"]).any(-1).mean() < 0.003
    assert (label != (preprocess[f"train_{seed}_lab"] > 0)).mean() < 0.003


@pytest.mark.parametrize("seed", [1, 2])
def test_colour_jitter_equals_the_official_one(seed: int, parity: Path) -> None:
    fixture, preprocess = np.load(parity / "fixture.npz"), np.load(parity / "fixture_preprocess.npz")
    random.seed(seed)
    rng = np.random.RandomState(seed)
    sides, colour = rng.uniform(-0.1, 0.1, 4), rng.uniform(0.8, 1.3, 2)
    draw = VisualDraw(tuple(sides.tolist()), tuple(colour.tolist()), random.uniform(-10, 10), random.random() > 0.5)
    crop, _ = augment_visual(fixture["in/A/first_rgb"], fixture["in/A/first_mask"] > 0, draw)
    difference = np.abs(crop.astype(int) - preprocess[f"train_color_{seed}_im"].astype(int)).max(-1)
    # Newer versions of Pillow round some blended values differently; larger differences come from the rotation.
    assert (difference > 1).mean() < 0.003
    assert (difference > 0).mean() < 0.1


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_spatial_perturbation_equals_the_official_one(seed: int, parity: Path) -> None:
    fixture, preprocess = np.load(parity / "fixture.npz"), np.load(parity / "fixture_preprocess.npz")
    rng = np.random.RandomState(seed)
    shift, factor = rng.uniform(-0.2, 0.2, 2).tolist(), rng.uniform(1 / 1.4, 1.4, 2).tolist()
    mask = fixture["in/A/prev_mask"] > 0
    gaussian = Gaussian.of(mask)
    assert gaussian is not None
    rendered = SpatialDraw(tuple(shift), tuple(factor))(gaussian).render(mask.shape)
    np.testing.assert_allclose(rendered, preprocess[f"gauss_train_{seed}"], atol=1e-6)


@pytest.mark.parametrize("seed", [1, 2])
def test_mask_perturbation_equals_the_official_one(seed: int, parity: Path) -> None:
    fixture, preprocess = np.load(parity / "fixture.npz"), np.load(parity / "fixture_preprocess.npz")
    rng = np.random.RandomState(seed)
    draw = MaskDraw(rng.uniform(0.8, 1.2), tuple(rng.uniform(-0.2, 0.2, 2).tolist()))
    moved = perturb_mask(fixture["in/A/prev_mask"] > 0, draw)
    np.testing.assert_array_equal(moved, preprocess[f"perturb_mask_{seed}"] > 0)


def test_perturbed_mask_that_leaves_the_frame_is_cut() -> None:
    mask = np.zeros((30, 40), np.bool_)
    mask[19:30, 29:40] = True
    moved = perturb_mask(mask, MaskDraw(1.0, (0.5, 0.5)))
    assert np.argwhere(moved).min(0).tolist() == [24, 34]
    assert moved.sum() == 6 * 6
    assert not perturb_mask(np.zeros((5, 5), np.bool_), MaskDraw(1.2, (0.0, 0.0))).any()


def test_a_sample_depends_on_seed_and_place_alone(stills: StillImages) -> None:
    samples, again = (TrainingSamples(stills, TINY, batch=2, seed=5) for _ in range(2))
    later = again[4, 1]
    for name, value in samples[4, 1].items():
        torch.testing.assert_close(value, later[name])
    assert samples[4, 0]["image"].shape == samples[4, 1]["image"].shape  # One scale per step.
    sizes = {tuple(samples[step, slot]["image"].shape[1:]) for step in range(6) for slot in range(2)}
    assert sizes == {(48, 64), (36, 48)}


def test_images_without_masks_are_all_listed(stills: StillImages) -> None:
    for _, mask in stills.pairs[1:]:
        mask.unlink()
    with pytest.raises(BadDataset, match=r"2 images have no mask: .*1\.png, .*2\.png"):
        StillImages.from_folder(stills.pairs[0][0].parent.parent)


def test_video_frames_follow_an_annotated_frame(tmp_path: Path) -> None:
    from vos_shared.datasets.synthetic import write_davis_tree

    write_davis_tree(tmp_path, clips=1, frames=4, size=(40, 56), objects=1)
    source = VideoFrames.from_sequences(davis2016(tmp_path))
    assert [(index, before) for _, _, index, before in source.frames] == [(1, 0), (2, 1), (3, 2)]
    example = source.example(0, np.random.default_rng(0))
    assert example.previous_mask is not None
    assert example.mask.any()
    assert example.frame.shape[:2] == example.mask.shape == example.previous_mask.shape


def test_the_spatial_guide_of_a_video_comes_from_the_frame_before() -> None:
    frame, here, before = np.zeros((48, 64, 3), np.uint8), np.zeros((48, 64), np.bool_), np.zeros((48, 64), np.bool_)
    here[4:12, 4:12] = before[36:44, 50:60] = True
    example = Example(frame, here, frame, here, before)
    for mask_guide in (False, True):
        settings = replace(TINY, mask_guide=mask_guide)
        for seed in range(5):
            spatial = make_sample(example, (48, 64), settings, np.random.default_rng(seed))["spatial"][0]
            assert spatial[36:44, 50:60].mean() > 10 * spatial[4:12, 4:12].mean()
    still = make_sample(replace(example, previous_mask=None), (48, 64), TINY, np.random.default_rng(0))["spatial"][0]
    assert still[4:12, 4:12].mean() > 10 * still[36:44, 50:60].mean()


def test_guides_are_changed_and_blanked() -> None:
    rng = np.random.default_rng(0)
    frame, mask = rng.integers(60, 255, (48, 64, 3), dtype=np.uint8), np.zeros((48, 64), np.bool_)
    mask[10:30, 20:50] = True
    mask[14:20, 30:40] = False

    def sample(seed: int, **augmentation: Any) -> dict[str, torch.Tensor]:
        settings = replace(TINY, augmentation=GuideAugmentation(**augmentation))
        return make_sample(Example(frame, mask, frame, mask, mask), (48, 64), settings, np.random.default_rng(seed))

    for part in ("visual", "spatial"):
        assert not torch.equal(sample(0)[part], sample(1)[part])
    assert not torch.equal(sample(0)["visual"], sample(0, blank_background=False)["visual"])
    assert not torch.equal(sample(0)["visual"], sample(0, keep_aspect=True)["visual"])
    drawn = [VisualDraw.sample(np.random.default_rng(seed), GuideAugmentation()) for seed in range(200)]
    assert 70 < sum(draw.flip for draw in drawn) < 130
    angles = [draw.angle for draw in drawn]
    assert -10 <= min(angles) < -9 < 9 < max(angles) <= 10
    assert all(draw.colour is None for draw in drawn)


def test_frames_and_masks_move_together() -> None:
    """In flips and random crops; the red channel of the frame is its mask."""
    mask = np.zeros((40, 56), np.bool_)
    mask[8:20, 6:30] = True
    frame = np.stack([mask * np.uint8(255), *[np.zeros((40, 56), np.uint8)] * 2], -1)
    flips = set()
    for seed in range(20):
        rng = np.random.default_rng(seed)
        example = _still(frame, mask, rng)
        np.testing.assert_array_equal(example.frame[..., 0] > 0, example.mask)
        assert example.guide_mask is mask
        flips.add(bool(example.mask[10, 45]))
        cropped, label = crop_sides(frame, mask, 0.3, rng)
        np.testing.assert_array_equal(cropped[..., 0] > 0, label)
    assert flips == {False, True}
    settings = replace(TINY, frame_crop_ratio=0.3)
    labels = [make_sample(_still(frame, mask, np.random.default_rng(0)), (40, 56), chosen, np.random.default_rng(1))
              for chosen in (TINY, settings)]  # fmt: skip
    assert not torch.equal(labels[0]["label"], labels[1]["label"])


def test_images_are_bgr_minus_the_mean() -> None:
    frame, mask = np.full((16, 16, 3), (10, 20, 30), np.uint8), np.ones((16, 16), np.bool_)
    settings = replace(TINY, scale_value=0.5)
    image = make_sample(Example(frame, mask, frame, mask, mask), (16, 16), settings, np.random.default_rng(0))["image"]
    expected = 0.5 * (np.array([30, 20, 10]) - np.array(MEAN_BGR))
    np.testing.assert_allclose(image[:, 8, 8], expected, rtol=1e-5)


def test_guides_of_videos_show_enough_of_an_object(tmp_path: Path) -> None:
    """A frame with a tiny object is no guide; void and, in YouTube-VOS, ids that are not listed are no objects."""
    frames, masks = np.zeros((4, 60, 80, 3), np.uint8), []
    for index, side in enumerate((20, 2, 20, 20)):
        mask = np.zeros((60, 80), np.uint8)
        mask[5 : 5 + side, 5 : 5 + side] = 1
        mask[40:50, 40:50], mask[55:, 70:] = 2, 255
        write_mask(tmp_path / f"{index}.png", mask)
        masks.append(tmp_path / f"{index}.png")
    video = Video.open(frames)
    annotations = dict(zip(video.frame_names, masks, strict=True))
    both = VideoFrames.from_sequences([VideoSequence("clip", video, annotations)])
    assert both.guides == {("clip", 1): [0, 2, 3], ("clip", 2): [0, 1, 2, 3]}
    assert {key for _, key, _, _ in both.frames} == {1, 2}
    chosen = {both.example(1, np.random.default_rng(seed)).guide_mask.sum() for seed in range(10)}
    assert chosen == {400}
    first = VideoFrames.from_sequences([VideoSequence("clip", video, annotations)], randomize_guide=False)
    assert first.guides == {("clip", 1): [0], ("clip", 2): [0]}
    listed = VideoFrames.from_sequences([VideoSequence("clip", video, annotations, objects={2: "00000"})])
    assert {key for _, key, _, _ in listed.frames} == {2}


def test_an_epoch_sees_every_example_of_every_source_once(stills: StillImages) -> None:
    source = Mixture([stills, stills])
    samples = TrainingSamples(source, TINY, batch=3, seed=1)
    orders = [[samples._order(epoch, place) for place in range(6)] for epoch in range(2)]
    assert all(sorted(order) == list(range(6)) for order in orders)
    assert orders[0] != orders[1] != list(range(6))
    assert [source._examples[index][1] for index in range(6)] == [0, 1, 2, 0, 1, 2]


def test_masks_of_videos_are_decoded_once_for_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other processes and a resumed run read the index; changed masks make a new one."""
    write_davis_tree(tmp_path / "davis", clips=2, frames=4, size=(48, 64))
    sequences, run = davis2017(tmp_path / "davis"), tmp_path / "run"
    found = VideoFrames.from_sequences(sequences, run)
    assert found == VideoFrames.from_sequences(sequences)
    pairs = [rest for _, *rest in found.frames]
    with monkeypatch.context() as patch:
        patch.setattr(VideoSequence, "annotation", lambda *_: pytest.fail("a mask was decoded"))
        again = VideoFrames.from_sequences(davis2017(tmp_path / "davis"), run)
    assert [rest for _, *rest in again.frames] == pairs
    assert again.guides == found.guides
    path = sequences[0].annotations["00001"]
    write_mask(path, np.zeros((48, 64), np.uint8))
    assert len(VideoFrames.from_sequences(davis2017(tmp_path / "davis"), run)) < len(found)
    (run / "objects.json").write_bytes(b"[" * 100_000)
    assert len(VideoFrames.from_sequences(davis2017(tmp_path / "davis"), run)) < len(found)


def test_only_large_objects_of_coco_are_trained_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []
    monkeypatch.setattr("vos_shared.datasets.coco.CocoObjects", lambda *_, min_share: asked.append(min_share))
    CocoImages.open(tmp_path, "train2017")
    assert asked == [0.03]


def test_augmentation_draws_stay_in_range() -> None:
    settings = GuideAugmentation(colour=True)
    for seed in range(50):
        draw = VisualDraw.sample(np.random.default_rng(seed), settings)
        assert max(map(abs, draw.sides)) <= 0.1
        assert draw.colour is not None
        assert all(0.8 <= factor <= 1.3 for factor in draw.colour)
        spatial = SpatialDraw.sample(np.random.default_rng(seed), settings)
        assert all(1 / 1.4 <= factor <= 1.4 for factor in spatial.factor)
