"""The segmenter of VideoPCA."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from unsup_fg.frame_file import FrameFile
from unsup_fg.inference import _run_lengths, load, video_soft_masks
from unsup_fg.method import VIDEOPCA
from unsup_fg.videopca import PASSES, VideoPCASettings, soft_masks
from vos_shared.contract_tests import MethodContract
from vos_shared.errors import BadVideo, UserError
from vos_shared.method import Method
from vos_shared.metrics.region import region_similarity
from vos_shared.video import Video

Clip = tuple[npt.NDArray[Any], npt.NDArray[Any]]


class TestContract(MethodContract):
    @pytest.fixture
    def method(self) -> Method:
        return VIDEOPCA

    @pytest.fixture
    def options(self) -> Mapping[str, Any]:
        return {"size": 48}


def prepared(frames: npt.NDArray[Any], **options: Any) -> Any:
    segmenter = load(device="cpu", **options)
    segmenter.prepare(Video.open(frames, name="clip"))
    return segmenter


def test_a_moving_disc_is_object_1(moving_disc: Clip) -> None:
    """At the default working size, where colours blend at its edge, and back at the frames' size."""
    frames, discs = moving_disc
    segmenter = prepared(frames)
    masks = [segmenter.step(frame).mask for frame in frames]
    assert region_similarity(discs[10], masks[10]) > 0.8
    assert set(np.unique(masks)) == {0, 1}


def test_without_resizing_the_soft_masks_are_those_of_the_algorithm(moving_disc: Clip) -> None:
    frames, _ = moving_disc
    segmenter = prepared(frames, size=None)
    expected = torch.cat(list(soft_masks(frames))).numpy()
    for frame, kept, soft in zip(frames, segmenter.soft_masks, expected, strict=True):
        np.testing.assert_array_equal(kept, np.floor(255 * soft + 0.5))
        segmentation = segmenter.step(frame, soft_masks=True)
        np.testing.assert_allclose(segmentation.soft_masks[0], soft, atol=0.5001 / 255)


def test_a_lower_threshold_gives_larger_masks(moving_disc: Clip) -> None:
    frames, _ = moving_disc
    low, high = (prepared(frames, size=64, threshold=threshold) for threshold in (0.2, 0.9))
    for frame in frames:
        smaller, larger = high.step(frame).mask, low.step(frame).mask
        assert (larger >= smaller).all()


def test_files_give_the_same_as_an_array(moving_disc: Clip, tmp_path: Path) -> None:
    frames, _ = moving_disc
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"{number:05d}.png")
    settings = VideoPCASettings(size=64)
    from_files = list(video_soft_masks(Video.open(tmp_path), settings))
    np.testing.assert_array_equal(from_files, list(video_soft_masks(Video.open(frames), settings)))


def test_a_long_video_is_worked_on_in_runs(moving_disc: Clip) -> None:
    """Each run is labelled independently."""
    frames = np.concatenate([moving_disc[0], moving_disc[0][::-1]])[:39]
    settings = VideoPCASettings(size=32, longest_run=20)
    alone = [list(video_soft_masks(Video.open(part), settings)) for part in (frames[:20], frames[20:])]
    np.testing.assert_array_equal(list(video_soft_masks(Video.open(frames), settings)), alone[0] + alone[1])


@given(frames=st.integers(1, 5000), longest=st.integers(20, 400))
def test_runs_are_few_and_nearly_equal(frames: int, longest: int) -> None:
    lengths = _run_lengths(frames, longest)
    assert sum(lengths) == frames
    assert max(lengths) <= longest
    assert max(lengths) - min(lengths) <= 1
    assert len(lengths) == -(-frames // longest)


class TestRefused:
    def test_too_little_space_for_temporary_files(self, moving_disc: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
        """Refused before any frame is read; 20 frames need 9 bytes a pixel, and their masks one."""
        usage, needed = shutil.disk_usage("."), 100 * 100 * (9 * 20 + 20)
        settings = VideoPCASettings(size=100, longest_run=20)
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=needed))
        assert len(list(video_soft_masks(Video.open(moving_disc[0]), settings))) == 20
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=needed - 1))
        with pytest.raises(UserError, match="has 2 MB free and 2 MB are needed; set TMPDIR"):
            next(video_soft_masks(Video.open(moving_disc[0]), settings))

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="only on Linux")
    def test_a_folder_for_temporary_files_that_fills_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tempfile, "TemporaryFile", lambda buffering: Path("/dev/full").open("r+b", buffering))  # noqa: SIM115
        with pytest.raises(UserError, match="is full; set TMPDIR"):
            FrameFile((4, 4), np.uint8).append(np.zeros((4, 4)))

    def test_a_step_before_prepare(self, moving_disc: Clip) -> None:
        segmenter = load(device="cpu")
        with pytest.raises(UserError, match="prepare"):
            segmenter.step(moving_disc[0][0])

    def test_a_step_after_reset(self, moving_disc: Clip) -> None:
        segmenter = prepared(moving_disc[0], size=32)
        segmenter.reset()
        with pytest.raises(UserError, match="prepare"):
            segmenter.step(moving_disc[0][0])

    def test_more_frames_than_were_prepared(self, moving_disc: Clip) -> None:
        frames = moving_disc[0][:5]
        segmenter = prepared(frames, size=32)
        for frame in frames:
            segmenter.step(frame)
        with pytest.raises(BadVideo, match="clip was prepared with 5 frames"):
            segmenter.step(frames[0])

    def test_objects(self, moving_disc: Clip) -> None:
        frames, discs = moving_disc
        with pytest.raises(UserError, match="prompt"):
            prepared(frames, size=32).step(frames[0], discs[0].astype(np.uint8))

    @pytest.mark.parametrize(
        "arguments",
        [
            {"weights": "some.pth"},
            {"device": "abacus"},
            {"precision": "fp4"},
            {"patches": 17},
            {"threshold": 0.0},
            {"threshold": 1.5},
        ],
    )
    def test_arguments(self, arguments: dict[str, Any]) -> None:
        with pytest.raises(UserError, match="|".join([*arguments, *map(str, arguments.values())])):
            load(**{"device": "cpu", **arguments})


def test_soft_masks_in_a_file_read_as_they_were() -> None:
    masks = np.random.default_rng(0).integers(0, 256, (3, 4, 6), dtype=np.uint8)
    kept = FrameFile((4, 6), np.uint8)
    for mask in masks:
        kept.append(mask)
    assert len(kept) == 3
    for index in (2, 0, 1):
        np.testing.assert_array_equal(kept[index], masks[index])
    assert kept[0].flags.writeable
    with pytest.raises(IndexError):
        kept[3]


def test_soft_masks_in_a_file_are_read_by_several_threads() -> None:
    """The segmenter steps on one thread while the masks of earlier frames are written on another."""
    masks = np.random.default_rng(0).integers(0, 256, (40, 90, 110), np.uint8)
    kept = FrameFile((90, 110), np.uint8)
    for mask in masks:
        kept.append(mask)
    with ThreadPoolExecutor(4) as pool:
        for index, found in zip(list(range(40)) * 20, pool.map(kept.__getitem__, list(range(40)) * 20), strict=True):
            np.testing.assert_array_equal(found, masks[index])


def test_columns_of_a_file_are_some_values_of_every_frame() -> None:
    frames = np.random.default_rng(0).integers(0, 1000, (5, 3, 4), dtype=np.int16)
    kept = FrameFile((3, 4), np.int16)
    for frame in frames:
        kept.append(frame)
    np.testing.assert_array_equal(kept.columns(slice(2, 9)), frames.reshape(5, 12)[:, 2:9])
    np.testing.assert_array_equal(kept.read(slice(1, 4)), frames[1:4])


def test_progress_counts_every_pass_of_every_frame(moving_disc: Clip) -> None:
    steps: list[int] = []
    list(video_soft_masks(Video.open(moving_disc[0]), VideoPCASettings(size=32), None, steps.append))
    assert sum(steps) == PASSES * 20
