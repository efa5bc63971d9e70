"""Tests of the contract for any method.

In the tests of a method::

    from vos_shared.contract_tests import MethodContract

    class TestContract(MethodContract):
        @pytest.fixture
        def method(self):
            return MY_METHOD

Override `weights` and `options` to make the method small and fast. Run pytest with ``-p vos_shared.testing``, so that a
failed test shows the compared values.
"""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import numpy as np
import pytest
import torch

from vos_shared.contract_clips import SIZE, Prompts, Segment, clip, held_bytes, masks_of, run, tracing
from vos_shared.errors import MissingExtra, UserError
from vos_shared.method import ENTRY_POINT_GROUP, Frame, Method, Segmentation, Segmenter, Supervision
from vos_shared.video import Video

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]

_LOADED: WeakKeyDictionary[type, dict[str, Segmenter]] = WeakKeyDictionary()
"""Loaded segmenters by test class and device, since loading may take long."""


class MethodContract:
    """The contract tests; subclass it and override the fixtures.

    Attributes:
        MEMORY: number of frames after which memory must not grow; override it if the paper's memory is longer.
    """

    MEMORY: ClassVar[int] = 25

    @pytest.fixture
    def method(self) -> Method:
        """The method to test."""
        pytest.fail("override the fixture `method`")

    @pytest.fixture
    def weights(self) -> str | Path | None:
        """Its weights; by default the method chooses."""
        return None

    @pytest.fixture
    def options(self) -> Mapping[str, Any]:
        """Options that make it fast."""
        return {}

    @pytest.fixture(params=DEVICES)
    def device(self, request: pytest.FixtureRequest) -> str:
        """All available devices."""
        return str(request.param)

    @pytest.fixture
    def segmenter(
        self,
        request: pytest.FixtureRequest,
        method: Method,
        weights: str | Path | None,
        options: Mapping[str, Any],
        device: str,
    ) -> Segmenter:
        """The method, loaded once for each class and device; each test resets it."""
        loaded = _LOADED.setdefault(request.cls, {})
        if device not in loaded:
            loaded[device] = method.load(weights, device, **options)
        return loaded[device]

    @pytest.fixture
    def prompted(self, method: Method) -> bool:
        """Whether the method takes prompts."""
        return method.supervision is Supervision.FIRST_FRAME

    @pytest.fixture
    def segment(self, prompted: bool) -> Segment:
        """Segment a clip, without prompts if the method finds objects by itself."""

        def run_prompted(
            segmenter: Segmenter, frames: Frame, prompts: Prompts, *, soft_masks: bool = False
        ) -> list[Segmentation]:
            return run(segmenter, frames, prompts if prompted else {}, soft_masks=soft_masks)

        return run_prompted

    @pytest.fixture
    def all_ids(self, prompted: bool) -> set[int]:
        """Ids that a mask of `clip` may contain."""
        return {0, 1, 2} if prompted else set(range(255))

    def test_import_leaves_torch_alone(self, method: Method) -> None:
        """Discovery and --help must be instant."""
        if not entry_points(group=ENTRY_POINT_GROUP, name=method.name):
            pytest.skip(f"{method.name} is not registered under {ENTRY_POINT_GROUP}")
        code = (
            "import sys; from importlib.metadata import entry_points; "
            f"[entry.load() for entry in entry_points(group={ENTRY_POINT_GROUP!r}, name={method.name!r})]; "
            "sys.exit('torch' in sys.modules)"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

    def test_info_says_what_runs(self, segmenter: Segmenter) -> None:
        """Reports need parameters and weights."""
        assert segmenter.info.parameters >= 0
        assert segmenter.info.weights

    def test_every_variant_runs(
        self,
        segment: Segment,
        method: Method,
        weights: str | Path | None,
        options: Mapping[str, Any],
        all_ids: set[int],
    ) -> None:
        """Every variant can be loaded, or loading names the missing extra."""
        frames, truth = clip(2)
        for variant in method.variant_names:
            try:
                segmenter = method.load(weights, "cpu", variant=variant, **options)
            except MissingExtra as missing:
                warnings.warn(f"{variant} was not run: {missing}", stacklevel=2)
                continue
            assert set(np.unique(masks_of(segment(segmenter, frames, {0: truth[0]})))) <= all_ids

    @pytest.mark.parametrize("size", [SIZE, (37, 53), (53, 37)])
    def test_masks_are_ids_of_the_frames_size(
        self, segment: Segment, segmenter: Segmenter, all_ids: set[int], size: tuple[int, int]
    ) -> None:
        """Also for sizes that no stride divides."""
        frames, truth = clip(size=size)
        for segmentation in segment(segmenter, frames, {0: truth[0]}):
            assert segmentation.mask.dtype == np.uint8
            assert segmentation.mask.shape == size
            assert set(np.unique(segmentation.mask)) <= all_ids
            assert segmentation.soft_masks is None

    def test_a_video_of_one_frame(self, segment: Segment, segmenter: Segmenter, all_ids: set[int]) -> None:
        """There is no second frame."""
        frames, truth = clip(1)
        assert set(np.unique(masks_of(segment(segmenter, frames, {0: truth[0]})))) <= all_ids

    def test_given_objects_come_back(self, segment: Segment, segmenter: Segmenter, prompted: bool) -> None:
        """The first mask (nearly) equals the prompt."""
        if not prompted:
            pytest.skip("finds objects by itself")
        frames, truth = clip(1)
        mask = segment(segmenter, frames, {0: truth[0]})[0].mask
        assert (mask == truth[0]).mean() > 0.9

    def test_ids_are_kept_as_given(self, segment: Segment, segmenter: Segmenter, prompted: bool) -> None:
        """Ids need not be consecutive."""
        if not prompted:
            pytest.skip("finds objects by itself")
        frames, truth = clip()
        ids = np.array([0, 7, 3], np.uint8)
        masks = masks_of(segment(segmenter, frames, {0: ids[truth[0]]}))
        assert set(np.unique(masks)) <= {0, 3, 7}
        assert {3, 7} <= set(np.unique(masks[0]))

    def test_the_same_again(self, segment: Segment, segmenter: Segmenter) -> None:
        """Two runs agree, and a video in between changes nothing."""
        frames, truth = clip()
        first = masks_of(segment(segmenter, frames, {0: truth[0]}))
        others, other_truth = clip(3, (48, 56), seed=1)
        segment(segmenter, others, {0: other_truth[0], 1: np.full((48, 56), 9, np.uint8)})
        np.testing.assert_array_equal(masks_of(segment(segmenter, frames, {0: truth[0]})), first)

    def test_masks_stay_as_they_were(self, segmenter: Segmenter, prompted: bool) -> None:
        """A later step must not write into an earlier mask, which a thread may still be writing to a file."""
        frames, truth = clip()
        segmenter.reset()
        segmenter.prepare(Video.open(frames))
        masks = [segmenter.step(frames[0], truth[0] if prompted else None).mask]
        copy = masks[0].copy()
        masks += [segmenter.step(frame).mask for frame in frames[1:]]
        np.testing.assert_array_equal(masks[0], copy)

    def test_input_stays_as_it_was(self, segment: Segment, segmenter: Segmenter) -> None:
        """Frames and prompts are not modified."""
        frames, truth = clip()
        frames_before, truth_before = frames.copy(), truth.copy()
        segment(segmenter, frames, {0: truth[0]})
        np.testing.assert_array_equal(frames, frames_before)
        np.testing.assert_array_equal(truth, truth_before)

    def test_an_object_of_one_pixel(self, segment: Segment, segmenter: Segmenter, all_ids: set[int]) -> None:
        """The object may get lost, but nothing fails."""
        frames, _ = clip()
        prompt = np.zeros(SIZE, np.uint8)
        prompt[10, 12] = 1
        assert set(np.unique(masks_of(segment(segmenter, frames, {0: prompt})))) <= all_ids

    def test_an_object_that_fills_the_frame(self, segment: Segment, segmenter: Segmenter, all_ids: set[int]) -> None:
        """There may be no background."""
        frames, _ = clip()
        assert set(np.unique(masks_of(segment(segmenter, frames, {0: np.ones(SIZE, np.uint8)})))) <= all_ids

    def test_an_object_that_vanishes(self, segment: Segment, segmenter: Segmenter, all_ids: set[int]) -> None:
        """The following frames are segmented without it."""
        frames, truth = clip(8, leaves=True)
        masks = masks_of(segment(segmenter, frames, {0: truth[0]}))
        assert masks.shape == truth.shape
        assert set(np.unique(masks)) <= all_ids

    def test_frames_without_any_texture(self, segment: Segment, segmenter: Segmenter, all_ids: set[int]) -> None:
        """Black frames, as in a fade, have neither contrast nor motion."""
        _, truth = clip()
        masks = masks_of(segment(segmenter, np.zeros((*truth.shape, 3), np.uint8), {0: truth[0]}))
        assert set(np.unique(masks)) <= all_ids

    def test_an_empty_prompt_is_none(self, segment: Segment, segmenter: Segmenter, prompted: bool) -> None:
        """An all-zero prompt changes nothing; without objects everything is background."""
        frames, truth = clip()
        empty = np.zeros(SIZE, np.uint8)
        with_empty = masks_of(segment(segmenter, frames, {0: truth[0], 2: empty}))
        np.testing.assert_array_equal(with_empty, masks_of(segment(segmenter, frames, {0: truth[0]})))
        if prompted:
            assert not masks_of(segment(segmenter, frames, {0: empty})).any()

    def test_an_object_that_comes_later(self, segment: Segment, segmenter: Segmenter, prompted: bool) -> None:
        """The object is prompted where it first appears, and is in no earlier mask."""
        if not prompted:
            pytest.skip("finds objects by itself")
        frames, truth = clip(6)
        only_first, only_second = np.where(truth == 1, truth, 0), np.where(truth == 2, truth, 0)
        masks = masks_of(segment(segmenter, frames, {0: only_first[0], 3: only_second[3]}))
        assert set(np.unique(masks[:3])) <= {0, 1}
        assert 2 in masks[3]

    def test_all_objects_may_come_later(self, segment: Segment, segmenter: Segmenter, prompted: bool) -> None:
        """The first frames have no prompt."""
        if not prompted:
            pytest.skip("finds objects by itself")
        frames, truth = clip(4)
        masks = masks_of(segment(segmenter, frames, {2: truth[2]}))
        assert not masks[:2].any()
        assert {1, 2} <= set(np.unique(masks[2]))

    def test_a_prompt_of_another_size_is_refused(self, segment: Segment, segmenter: Segmenter, prompted: bool) -> None:
        """With a `UserError`."""
        if not prompted:
            pytest.skip("takes no prompt")
        frames, truth = clip(1)
        with pytest.raises(UserError):
            segment(segmenter, frames, {0: truth[0][:-1]})

    def test_a_frame_of_another_size_is_refused(self, segmenter: Segmenter, prompted: bool) -> None:
        """All frames of a video must have one size."""
        frames, truth = clip(2)
        segmenter.reset()
        segmenter.prepare(Video.open(frames))
        segmenter.step(frames[0], truth[0] if prompted else None)
        with pytest.raises(UserError):
            segmenter.step(frames[1][:-8])

    def test_scores_are_soft_masks(self, segment: Segment, segmenter: Segmenter, prompted: bool) -> None:
        """One plane for each id up to the largest, in 0..1; computing them does not change the masks."""
        frames, truth = clip()
        plain = masks_of(segment(segmenter, frames, {0: truth[0]}))
        scored = segment(segmenter, frames, {0: truth[0]}, soft_masks=True)
        np.testing.assert_array_equal(masks_of(scored), plain)
        for segmentation in scored:
            soft_masks = segmentation.soft_masks
            assert soft_masks is not None
            assert soft_masks.dtype == np.float32
            assert soft_masks.shape[1:] == SIZE
            assert len(soft_masks) == 2 if prompted else len(soft_masks) >= segmentation.mask.max()
            assert np.isfinite(soft_masks).all()
            assert (soft_masks >= 0).all()
            assert (soft_masks <= 1).all()

    @pytest.mark.parametrize("precision", ["bf16", "fp16"])
    def test_half_precision_runs(
        self,
        segment: Segment,
        method: Method,
        weights: str | Path | None,
        options: Mapping[str, Any],
        device: str,
        precision: str,
        all_ids: set[int],
    ) -> None:
        """Masks are valid; their accuracy is left to the tests of the method."""
        if (device, precision) == ("cpu", "fp16"):
            pytest.skip("fp16 is for GPUs")
        frames, truth = clip(3)
        masks = masks_of(segment(method.load(weights, device, precision, **options), frames, {0: truth[0]}))
        assert masks.shape == truth[:3].shape
        assert set(np.unique(masks)) <= all_ids

    def test_memory_is_bounded(self, segmenter: Segmenter, prompted: bool) -> None:
        """A video twice as long needs no more memory in `prepare` and `step`, since a live stream has no end."""
        frames, truth = clip(2 * self.MEMORY, (32, 40))
        held = []
        for length in (self.MEMORY, 2 * self.MEMORY):
            segmenter.reset()
            with tracing():
                segmenter.prepare(Video.open(frames[:length]))
                for t, frame in enumerate(frames[:length]):
                    segmenter.step(frame, truth[0] if prompted and t == 0 else None)
                held.append(held_bytes())
        a_quarter_of_each = self.MEMORY * frames[0].nbytes / 4
        assert held[1] - held[0] < a_quarter_of_each
