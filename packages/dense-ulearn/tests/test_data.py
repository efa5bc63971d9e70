"""Which frames make a clip, and which clips make a batch."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dense_ulearn.data import ClipBatches, ClipDataset, clip_batches, sample_ids
from dense_ulearn.presets import Augmentation, Sampling
from vos_shared.errors import BadDataset, BadVideo
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


def test_an_epoch_visits_every_video_once_and_each_epoch_differs() -> None:
    batches = list(ClipBatches(12, 4, 2, seed=3))
    epochs = [[key for batch in batches[first : first + 3] for key in batch] for first in (0, 3)]
    orders = [[index for _, index in epoch] for epoch in epochs]
    assert [{epoch for epoch, _ in keys} for keys in epochs] == [{0}, {1}]
    assert [sorted(order) for order in orders] == [list(range(12))] * 2
    assert orders[0] != orders[1]


def test_the_last_partial_batch_is_dropped() -> None:
    assert [len(batch) for batch in ClipBatches(11, 4, 1, seed=0)] == [4, 4]


@given(st.integers(0, 6))
def test_a_run_that_starts_later_sees_the_rest_of_the_same_batches(start: int) -> None:
    whole = list(ClipBatches(8, 4, 3, seed=5, clips_per_video=1))
    later = ClipBatches(8, 4, 3, seed=5, start=start)
    assert list(later) == whole[start:]
    assert len(later) == len(whole) - start


def test_ranks_share_the_batch_of_one_process() -> None:
    whole = list(ClipBatches(8, 4, 2, seed=1))
    ranks = [list(ClipBatches(8, 2, 2, seed=1, rank=rank, world=2)) for rank in range(2)]
    assert [first + second for first, second in zip(*ranks, strict=True)] == whole


def test_too_few_videos_for_a_batch() -> None:
    with pytest.raises(BadDataset, match="3 clips do not fill one batch of 4"):
        ClipBatches(3, 4, 1, seed=0)


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
        list(clip_batches(clips, [[(0, 0)]], workers))
    assert str(caught.value).startswith(f"frame {tmp_path}")
    assert "\n" not in str(caught.value)
