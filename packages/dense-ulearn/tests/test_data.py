"""Which frames make a clip, and which clips make a batch."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dense_ulearn.data import ClipDataset, TrainingClips, sample_ids
from dense_ulearn.presets import Augmentation, Sampling, TrainingSettings
from vos_shared.errors import BadDataset, BadVideo
from vos_shared.training.batches import load
from vos_shared.video import Video

SEEDS = st.integers(0, 2**32 - 1)


@given(SEEDS, st.integers(5, 60), st.integers(1, 12))
def test_a_clip_is_evenly_spaced_frames_in_any_order(seed: int, length: int, gap: int) -> None:
    ids = sample_ids(length, Sampling(gap=gap), np.random.default_rng(seed))
    steps = {second - first for first, second in pairwise(sorted(ids))}
    assert steps == {min(length, 5 * gap) // 5}
    assert min(ids) >= 0
    assert max(ids) < length


@given(SEEDS, st.integers(5, 60), st.integers(1, 12))
def test_an_ordered_clip_rises_and_spans_its_window(seed: int, length: int, gap: int) -> None:
    ids = sample_ids(length, Sampling(gap=gap, ordered=True), np.random.default_rng(seed))
    window = min(length, 5 * gap)
    assert ids == [ids[0] + index * window // 5 for index in range(5)]
    assert 0 <= ids[0] <= length - window


def test_an_ordered_clip_of_too_short_a_video_repeats_frames() -> None:
    assert sample_ids(3, Sampling(ordered=True), np.random.default_rng(0)) == [0, 0, 1, 1, 2]


def test_every_place_and_every_anchor_frame_is_drawn() -> None:
    clips = [sample_ids(12, Sampling(gap=2), np.random.default_rng(seed)) for seed in range(300)]
    assert {clip[0] for clip in clips} == set(range(12))
    assert {min(clip) for clip in clips} == {0, 1, 2, 3}


class Keys(ClipDataset):
    """Returns the key of the clip that is requested."""

    def __getitem__(self, key: tuple[int, int]) -> Any:
        return key


def keys_of(videos: int, batch: int, steps: int, *, clips_per_video: int = 1, processes: int = 1) -> list[list[Any]]:
    """(epoch, index) of the clips of each step, over all processes."""
    frames = np.zeros((videos, 5, 40, 40, 3), np.uint8)
    clips = Keys([Video.open(video) for video in frames], Sampling(), Augmentation(), seed=3)
    settings = TrainingSettings(batch=batch, clips_per_video=clips_per_video, seed=3)
    samples = TrainingClips(clips, settings, processes)
    return [[samples[step, slot] for slot in range(batch * processes)] for step in range(steps)]


def test_an_epoch_visits_every_video_and_each_epoch_differs() -> None:
    batches = keys_of(6, 4, 6, clips_per_video=2)
    epochs = [[key for batch in batches[first : first + 3] for key in batch] for first in (0, 3)]
    orders = [[index for _, index in epoch] for epoch in epochs]
    assert [{epoch for epoch, _ in keys} for keys in epochs] == [{0}, {1}]
    assert [sorted(order) for order in orders] == [list(range(12))] * 2
    assert orders[0] != orders[1]
    assert orders[0] == np.random.default_rng((3, 0)).permutation(12).tolist(), "as in earlier versions"


def test_the_last_partial_batch_is_dropped() -> None:
    assert [{epoch for epoch, _ in batch} for batch in keys_of(11, 4, 3)] == [{0}, {0}, {1}]


def test_processes_share_the_batch_of_one() -> None:
    assert keys_of(8, 2, 4, processes=2) == keys_of(8, 4, 4)


def test_too_few_videos_for_a_batch() -> None:
    with pytest.raises(BadDataset, match="3 clips do not fill one batch of 4"):
        keys_of(3, 4, 1)


def clips_of(frames: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> ClipDataset:
    return ClipDataset([Video.open(frames)], Sampling(), Augmentation(crop=32, shorter_side=(32, 40)), seed=7)


def test_a_clip_follows_from_epoch_and_index_alone() -> None:
    clips = clips_of(np.random.default_rng(0).integers(0, 256, (20, 48, 64, 3), np.uint8))
    first = clips[2, 0]
    clips[3, 0]
    assert all((one == two).all() for one, two in zip(first, clips[2, 0], strict=True))
    assert (first.main != clips[3, 0].main).any()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_frame_is_one_line(tmp_path: Path, workers: int) -> None:
    for index in range(5):
        (tmp_path / f"{index}.jpg").write_bytes(b"\xff\xd8\xff" + os.urandom(40))
    clips = ClipDataset([Video.open(tmp_path)], Sampling(), Augmentation(crop=32, shorter_side=(32, 40)), seed=0)
    with pytest.raises(BadVideo) as caught:
        list(load(clips, [[(0, 0)]], workers=workers))
    assert str(caught.value).startswith(f"frame {tmp_path}")
    assert "\n" not in str(caught.value)
