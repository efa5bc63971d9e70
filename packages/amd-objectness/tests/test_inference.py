"""Zero-shot segmentation: channels, sizes, batches, and adaptation to a video."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from amd_objectness.adaptation import AdaptingSegmenter, PairFrames, sampling_for
from amd_objectness.channels import ChannelVotes, regions, spread
from amd_objectness.checkpoints import load_weights, save_weights
from amd_objectness.inference import AMDSegmenter, load
from amd_objectness.settings import AdaptationSettings
from vos_shared.errors import BadWeights, UserError
from vos_shared.video import Video


def frames_of(count: int = 3, height: int = 40, width: int = 60, seed: int = 0) -> Any:
    """Smooth noise, uint8 [T, H, W, 3]."""
    coarse = torch.rand(count, 3, 5, 7, generator=torch.Generator().manual_seed(seed))
    smooth = F.interpolate(coarse, (height, width), mode="bilinear")
    return (smooth.permute(0, 2, 3, 1) * 255).byte().numpy()


def test_the_soft_mask_is_the_enlarged_softmax_of_the_channel(small_weights: Path) -> None:
    frames = frames_of()
    segmenter = load(small_weights, channel="3")
    assert segmenter.network.shorter_side == 40
    logits = segmenter.network.logits(frames)
    official = F.interpolate(logits.softmax(1), frames.shape[1:3], mode="bilinear", align_corners=True)
    sharper = F.interpolate(logits, frames.shape[1:3], mode="bilinear", align_corners=True).softmax(1)
    for index, frame in enumerate(frames):
        found = segmenter.step(frame, soft_masks=True)
        assert found.soft_masks is not None
        np.testing.assert_allclose(found.soft_masks[0], official[index, 3], atol=1e-5)
        np.testing.assert_array_equal(found.mask, found.soft_masks[0] > 0.5)
    other = load(small_weights, channel="3", logits_first=True).step(frames[0], soft_masks=True).soft_masks
    assert other is not None
    np.testing.assert_allclose(other[0], sharper[0, 3], atol=1e-5)


def test_every_segment_can_be_an_object(small_weights: Path) -> None:
    found = load(small_weights, channel="all").step(frames_of()[0], soft_masks=True)
    assert found.soft_masks is not None
    np.testing.assert_allclose(found.soft_masks.sum(0), 1, atol=1e-5)
    np.testing.assert_array_equal(found.mask, found.soft_masks.argmax(0) + 1)


def test_the_default_channel_is_that_of_the_weights_or_the_released_one(small_weights: Path) -> None:
    assert load(small_weights).channel == 2
    assert load("untrained", shorter_side=64).channel == 1


def test_the_threshold_is_the_given_one_or_that_of_the_weights_or_the_released_one(
    small_weights: Path, tmp_path: Path
) -> None:
    weights = load_weights(small_weights)
    asking = tmp_path / "asking.safetensors"
    save_weights(asking, replace(weights, metadata={**weights.metadata, "threshold": "0.1"}))
    frames = frames_of(1)
    cases: list[tuple[Path, dict[str, Any], float]] = [
        (small_weights, {}, 0.5),
        (asking, {}, 0.1),
        (asking, {"threshold": 0.3}, 0.3),
    ]
    for path, options, threshold in cases:
        (found,) = load(path, **options).segment(frames, soft_masks=True)
        assert found.soft_masks is not None
        assert np.array_equal(found.mask, found.soft_masks[0] > threshold)


def test_batches_equal_single_frames(small_weights: Path) -> None:
    frames = frames_of(5)
    segmenter = load(small_weights)
    together = segmenter.segment(frames, soft_masks=True)
    for frame, batched in zip(frames, together, strict=True):
        single = segmenter.step(frame, soft_masks=True)
        assert single.soft_masks is not None
        assert batched.soft_masks is not None
        np.testing.assert_allclose(batched.soft_masks, single.soft_masks, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (3, 90), (5, 7), (61, 40)])
def test_frames_smaller_than_the_stride_and_portrait_ones_are_segmented(
    small_weights: Path, size: tuple[int, int]
) -> None:
    frames = frames_of(2, *size)
    for channel in ("auto", "all", "0"):
        segmenter = load(small_weights, channel=channel)
        segmenter.prepare(Video.open(frames))
        assert segmenter.step(frames[0]).mask.shape == size


def test_a_channel_is_chosen_for_its_place_and_motion() -> None:
    centre, border = regions(20, 30, torch.device("cpu"))
    masks = torch.zeros(1, 5, 20, 30)
    masks[0, 3] = centre
    masks[0, 0] = 1 - centre
    votes = ChannelVotes()
    votes.add_frames(masks)
    still = votes.choose()
    assert (still.channel, still.reason[:18]) == (3, "100% of the centre")
    # Two segments share the centre; the one whose flow differs from the border's wins.
    masks[0, 3, :, 15:] = 0
    masks[0, 4] = centre
    masks[0, 4, :, :15] = 0
    vectors = torch.zeros(1, 5, 2)
    vectors[0, 4] = torch.tensor([3.0, 4.0])
    votes = ChannelVotes()
    votes.add_frames(masks)
    votes.add_motion(masks, vectors)
    moving = votes.choose()
    assert moving.channel == 4
    assert "flow 5.0 pixels from the border's" in moving.reason
    assert float((centre * border).sum()) == 0


def test_auto_needs_the_whole_video_before_the_first_step(
    small_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = frames_of(5)
    segmenter = load(small_weights, channel="auto", batch=2)
    with pytest.raises(UserError, match="call prepare"):
        segmenter.step(frames[0])
    segmenter.prepare(Video.open(frames, name="clip"))
    assert segmenter.choice is not None
    assert f"clip: channel {segmenter.choice.channel}, " in capsys.readouterr().out
    other = load(small_weights, channel="auto", batch=5)
    other.prepare(Video.open(frames))
    assert other.choice is not None
    assert other.choice.channel == segmenter.choice.channel


def test_pairs_are_spread_over_a_video() -> None:
    assert list(spread(0)) == []
    assert list(spread(3)) == [0, 1, 2]
    assert list(spread(100, 4)) == [0, 25, 50, 75]


def test_adaptation_starts_from_the_same_weights_for_each_video_and_is_deterministic(small_weights: Path) -> None:
    first, second = (Video.open(frames_of(3, seed=seed), name=f"v{seed}") for seed in (0, 1))
    segmenter = load(small_weights, adapt=True, iterations=1, pairs=1)
    assert isinstance(segmenter, AdaptingSegmenter)
    start = segmenter.network
    before = {name: value.clone() for name, value in start.model.state_dict().items()}
    segmenter.prepare(first)
    adapted = state_of(segmenter)
    assert not torch.equal(adapted["backbone2.conv1.weight"], before["backbone2.conv1.weight"])
    segmenter.prepare(second)
    segmenter.prepare(first)
    assert_same(state_of(segmenter), adapted)
    segmenter.reset()
    assert segmenter.network is start
    assert_same(dict(start.model.state_dict()), before)
    with pytest.raises(UserError, match="call prepare"):
        segmenter.step(first[0])


def test_adapted_networks_are_kept_and_reused_while_nothing_changes(
    small_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = Video.open(frames_of(), name="clip")

    def prepared(**options: Any) -> AMDSegmenter:
        segmenter = load(small_weights, adapt=True, iterations=1, pairs=1, models=tmp_path, **options)
        segmenter.prepare(video)
        return segmenter

    made = state_of(prepared())
    (path,) = (tmp_path / "clip").glob("adapted-*.safetensors")
    assert load_weights(path).description.endswith("adapted to clip in 1 steps")
    with monkeypatch.context() as patch:
        patch.setattr("amd_objectness.adaptation.adapt", lambda *_: pytest.fail("nothing has changed"))
        assert_same(state_of(prepared()), made)
    prepared(learning_rate=1e-3)
    assert len(list((tmp_path / "clip").glob("*"))) == 2
    path.write_bytes(b"damaged")
    with pytest.raises(BadWeights, match=path.name):
        prepared()


def test_adaptation_to_a_video_of_one_frame_is_refused(small_weights: Path) -> None:
    segmenter = load(small_weights, adapt=True, iterations=1)
    with pytest.raises(UserError, match="video one has one frame"):
        segmenter.prepare(Video.open(frames_of(1), name="one"))


def test_adaptation_reads_each_frame_once() -> None:
    frames = frames_of(6)
    found = PairFrames([Video.open(frames)], 20, sampling_for(40))
    assert len(found.pairs) == 20
    for number, (_, *both) in enumerate(found.pairs):
        for frame, index in zip(found.pair(number), both, strict=True):
            assert abs(frame.astype(int).mean() - frames[index].astype(int).mean()) < 2


def test_the_sampling_of_adaptation_is_that_of_the_release() -> None:
    assert (sampling_for(392).shorter_side, sampling_for(392).crop) == (400, 384)
    assert sampling_for(8).crop == 8


def test_options_that_cannot_be_used_are_refused(small_weights: Path) -> None:
    options: list[tuple[dict[str, Any], str]] = [
        ({"shorter_side": 4}, "--shorter-side is 4"),
        ({"threshold": 1.0}, "--threshold is 1.0"),
        ({"batch": 0}, "--batch is 0"),
        ({"iterations": 5}, "has no option iterations"),
        ({"nonsense": 1}, "has no option nonsense"),
    ]
    for wrong, message in options:
        with pytest.raises(UserError, match=message):
            load(small_weights, **wrong)
    adaptation: list[tuple[dict[str, Any], str]] = [
        ({"iterations": 0}, "--iterations is 0"),
        ({"pairs": 0}, "--pairs is 0"),
        ({"learning_rate": 0.0}, "--learning-rate is 0.0"),
    ]
    for wrong, message in adaptation:
        with pytest.raises(UserError, match=message):
            AdaptationSettings(**wrong)


def test_a_prompted_object_is_refused(small_weights: Path) -> None:
    with pytest.raises(UserError, match="leave out the prompt"):
        load(small_weights).step(frames_of()[0], np.ones((40, 60), np.uint8))


def state_of(segmenter: AMDSegmenter) -> dict[str, Tensor]:
    return dict(segmenter.network.model.state_dict())


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert all(torch.equal(value, second[name]) for name, value in first.items())
