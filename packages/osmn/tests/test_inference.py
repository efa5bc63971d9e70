"""The propagation loop against what the unmodified official scripts wrote, and truths about objects."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from osmn.inference import OSMNSegmenter
from osmn.networks import OSMN, Architecture, initialise
from osmn.settings import InferenceSettings
from vos_shared.datasets.davis import davis2017
from vos_shared.errors import BadMask, BadVideo
from vos_shared.method import ModelInfo

INFO = ModelInfo(0, "made in a test", trained=False)


def test_probabilities_equal_the_official_run(parity: Path, official_model: Callable[[str], OSMN]) -> None:
    settings = InferenceSettings(scale_value=0.00787)
    segmenter = OSMNSegmenter(official_model("osvos"), INFO, settings)
    for sequence in davis2017(parity / "e2e" / "DAVIS"):
        segmenter.reset()
        for frame, (name, prompt) in zip(sequence.video, sequence.prompts(), strict=True):
            result = segmenter.step(frame, prompt, scores=True)
            assert result.scores is not None
            for key in range(1, len(result.scores) + 1):
                file = parity / "e2e" / "res2017" / sequence.name / str(key) / f"{name}.npy"
                if file.exists():  # The first frame has none.
                    np.testing.assert_allclose(result.scores[key - 1], np.load(file), atol=1e-4, rtol=0)


@pytest.fixture
def segmenter() -> OSMNSegmenter:
    torch.manual_seed(0)
    return OSMNSegmenter(initialise(OSMN(Architecture("lite", head_width=16))), INFO, InferenceSettings(object_batch=2))


def test_objects_do_not_disturb_each_other(segmenter: OSMNSegmenter) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (3, 64, 96, 3), dtype=np.uint8)
    prompt = np.zeros((64, 96), np.uint8)
    prompt[5:20, 5:25], prompt[30:50, 40:70], prompt[50:60, 5:15] = 1, 2, 4

    def soft(mask: np.ndarray) -> list[np.ndarray]:
        segmenter.reset()
        results = [segmenter.step(frame, mask if t == 0 else None, scores=True) for t, frame in enumerate(frames)]
        return [result.scores for result in results if result.scores is not None]

    together = soft(prompt)
    for key in (1, 2, 4):
        alone = soft(np.where(prompt == key, prompt, np.uint8(0)))
        for ours, theirs in zip(together, alone, strict=True):
            np.testing.assert_allclose(ours[key - 1], theirs[key - 1], atol=1e-5)


def test_new_objects_are_returned_as_they_were_given(segmenter: OSMNSegmenter) -> None:
    frame = np.zeros((33, 47, 3), np.uint8)
    prompt = np.zeros((33, 47), np.uint8)
    prompt[0, 46] = 3
    np.testing.assert_array_equal(segmenter.step(frame, prompt).mask, prompt)


def test_sizes_must_agree(segmenter: OSMNSegmenter) -> None:
    frame = np.zeros((32, 48, 3), np.uint8)
    with pytest.raises(BadMask, match=r"\[30, 48\].*\[32, 48\]"):
        segmenter.step(frame, np.zeros((30, 48), np.uint8))
    segmenter.step(frame)
    with pytest.raises(BadVideo, match="40 wide and 32 high"):
        segmenter.step(frame[:, :40])
