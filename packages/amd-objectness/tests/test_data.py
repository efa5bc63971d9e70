"""Training pairs: choice of frames, sizes, crops and augmentations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from amd_objectness.data import TrainingPairs, changed_colours, crop_pair, draw_pair, pixels_of, scaled_size, usable
from amd_objectness.presets import Optimisation, Sampling
from vos_shared.datasets.frame_lists import read_clip_list
from vos_shared.errors import BadDataset, UserError
from vos_shared.testing import parity_folder
from vos_shared.video import Video

TINY = Sampling(shorter_side=40, crop=32)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def test_sizes_are_rounded_as_released() -> None:
    assert scaled_size((480, 854), 392) == (392, 697)
    assert scaled_size((854, 480), 392) == (697, 392)
    assert scaled_size((1080, 1920), 400) == (400, 711)
    assert scaled_size((3, 5), 392) == (392, 653)
    assert scaled_size((1, 1000), 392, 9799)[1] == 9799  # The longer side wins.


def test_frames_are_scaled_to_the_size_of_the_official_input() -> None:
    stored = np.load(parity_folder("amd-objectness") / "fixture_seg.npz")["real_x"]
    assert stored.shape[2:] == scaled_size((480, 854), 392)


def test_resizing_is_bilinear_without_antialiasing() -> None:
    ramp = np.repeat(np.arange(0, 256, 4, dtype=np.uint8)[None, :, None], 64, 0).repeat(3, 2)  # [64, 64, 3]
    found = pixels_of([ramp], (64, 32))[0, 0, 0]
    expected = (torch.from_numpy(ramp[0, ::2, 0]).float() + torch.from_numpy(ramp[0, 1::2, 0]).float()) / 2
    assert torch.equal(found.float(), (expected + 0.5).floor())
    assert torch.equal(pixels_of([ramp], (64, 64))[0], torch.from_numpy(ramp).permute(2, 0, 1))


def test_pairs_are_frames_within_the_gap_or_the_last_frame_twice() -> None:
    rng = np.random.default_rng(0)
    pairs = {draw_pair(4, 1, rng) for _ in range(200)}
    assert pairs == {(0, 1), (1, 2), (2, 3), (3, 3)}
    assert {draw_pair(2, 3, rng) for _ in range(200)} == {(0, 1), (0, 0), (1, 1), (1, 0)}
    assert {abs(a - b) for a, b in (draw_pair(50, 3, rng) for _ in range(500))} == {0, 1, 2, 3}


def test_both_frames_have_the_same_crop() -> None:
    frame = noise(48, 64, 3)
    for sampling in (TINY, replace(TINY, flip=True, colour=0.5)):
        pair = crop_pair([frame, frame], sampling, np.random.default_rng(1))
        assert (pair.shape, pair.dtype) == ((2, 3, 32, 32), torch.uint8)
        assert torch.equal(pair[0], pair[1])


@pytest.mark.parametrize("size", [(1, 1), (3, 90), (90, 3), (20, 20), (64, 48)])
def test_frames_of_any_size_fill_the_crop(size: tuple[int, int]) -> None:
    assert crop_pair([noise(*size, 3)] * 2, TINY, np.random.default_rng(0)).shape == (2, 3, 32, 32)


def test_the_second_crop_is_shifted_on_request() -> None:
    rows, columns = np.mgrid[:40, :60].astype(np.uint8)
    frame = np.stack([rows, columns, rows], 2)
    sampling = replace(TINY, scale=(1.0, 1.0), shift=3)
    pairs = torch.stack([crop_pair([frame, frame], sampling, np.random.default_rng(seed)) for seed in range(60)]).int()
    moved = pairs[:, 1] - pairs[:, 0]
    assert torch.equal(moved, moved[:, :, :1, :1].expand_as(moved))
    for channel in (0, 1):
        assert set(moved[:, channel, 0, 0].tolist()) == set(range(-3, 4))
    assert pairs[:, :, 0].max() == 39
    assert pairs.min() == 0


def test_half_of_the_pairs_are_mirrored_on_request() -> None:
    frame = np.zeros((40, 40, 3), np.uint8)
    frame[:, 20:] = 255
    for flip, corners in ((False, {0}), (True, {0, 255})):
        sampling = replace(TINY, flip=flip)
        pairs = [crop_pair([frame, frame], sampling, np.random.default_rng(seed)) for seed in range(20)]
        assert {int(pair[0, 0, 0, 0]) for pair in pairs} == corners


def test_grey_stays_grey_when_colours_change() -> None:
    pair = torch.from_numpy(noise(2, 1, 8, 8)).expand(-1, 3, -1, -1)
    changed = changed_colours(pair, 0.5, np.random.default_rng(0))
    assert torch.equal(changed[:, 0], changed[:, 1])
    assert not torch.equal(changed, pair)


def test_pairs_depend_on_step_and_slot_alone_and_every_pass_visits_every_video() -> None:
    videos = [Video.open(np.full((3, 40, 40, 3), 10 * index, np.uint8), name=str(index)) for index in range(5)]
    pairs = TrainingPairs(videos, TINY, batch=2, seed=0)
    assert torch.equal(pairs[3, 1], TrainingPairs(videos, TINY, batch=2, seed=0)[3, 1])
    seen = [int(pairs[step, slot].max()) // 10 for step in range(5) for slot in range(2)]
    assert sorted(seen[:5]) == sorted(seen[5:]) == [0, 1, 2, 3, 4]


def test_the_batches_of_two_processes_are_the_batch_of_one() -> None:
    videos = [Video.open(noise(3, 40, 40, 3, seed=index), name=str(index)) for index in range(3)]
    pairs = TrainingPairs(videos, TINY, batch=4, seed=0)
    both = [torch.stack([pairs[1, slot] for slot in slots]) for slots in ((0, 1), (2, 3))]
    assert torch.equal(torch.cat(both), torch.stack([pairs[1, slot] for slot in range(4)]))


@pytest.mark.parametrize("mode", ["L", "RGBA", "RGB"])
def test_grey_transparent_and_portrait_images_make_pairs(tmp_path: Path, mode: str) -> None:
    for index in range(2):
        Image.fromarray(noise(60, 40, 3, seed=index)).convert(mode).save(tmp_path / f"{index}.png")
    video = Video.open(tmp_path)
    assert TrainingPairs([video], TINY, 1, 0)[0, 0].shape == (2, 3, 32, 32)


def test_split_files_are_read_as_released(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a/0.jpg", "a/1.jpg", "b/0.jpg"):
        path = tmp_path / "train_all_frames" / "JPEGImages" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(40, 40, 3)).save(path)
    split = tmp_path / "ytb.txt"
    split.write_text(
        "train_all_frames/JPEGImages/a 0.jpg 1.jpg\n\n \ntrain_all_frames/JPEGImages/b/ 0.jpg\n", encoding="utf-8"
    )
    clips = read_clip_list(split, tmp_path)
    assert [[path.name for path in clip] for clip in clips] == [["0.jpg", "1.jpg"], ["0.jpg"]]
    videos = usable(Video.from_files(files, name=files[0].parent.name) for files in clips)
    assert [video.name for video in videos] == ["a"]
    assert "left out 1 videos of a single frame: b" in capsys.readouterr().err
    with pytest.raises(BadDataset, match="no video has two frames"):
        usable([Video.open(noise(1, 8, 8, 3), name="one")])


def test_the_rate_falls_as_released() -> None:
    rates = [Optimisation().rate(step, 3) for step in range(3)]
    assert rates == pytest.approx([1.000e-4, 6.973e-5, 3.783e-5], rel=1e-3)
    assert [Optimisation(warm_up=2).rate(step, 3) / rate for step, rate in enumerate(rates)] == pytest.approx(
        [0.5, 1, 1]
    )


def test_settings_that_cannot_be_used_are_refused() -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"crop": 4}, "--crop is 4; give 8 to"),
        ({"shorter_side": 100}, "--shorter-side 100 times 0.96 is less than --crop 384"),
        ({"shorter_side": 100_000}, "--shorter-side is 100000; give 8 to"),
        ({"gap": 0}, "--gap is 0"),
        ({"scale": (1.0, 0.5)}, "--scale 1.0 0.5"),
        ({"scale": (0.0, 1.0)}, "--scale 0.0 1.0"),
        ({"colour": 1.0}, "--colour is 1.0"),
    ]
    for wrong, message in cases:
        with pytest.raises(UserError, match=message):
            Sampling(**wrong)
    for rate in (0, 1e-7):
        with pytest.raises(UserError, match=f"--lr {rate} --min-lr 1e-06"):
            Optimisation(lr=rate)
