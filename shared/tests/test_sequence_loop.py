"""The loop over a sequence: the calls of the segmenter, and the measured times."""

import random
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
import torch

from vos_shared.datasets import VideoSequence, davis2017
from vos_shared.method import Frame, ModelInfo, ObjectMask, Segmentation, Segmenter, Supervision
from vos_shared.runtime.seeding import seed_everything
from vos_shared.sequence_loop import SegmentedFrame, segment_sequence
from vos_shared.video import Video
from vos_shared.video_sources import ArrayFrames


class Sink(dict[str, ObjectMask]):
    def write(self, item: SegmentedFrame) -> None:
        self[item.name] = item.segmentation.mask


class Witness(Segmenter):
    """Records its calls."""

    info = ModelInfo(0, "none", True)

    def reset(self) -> None:
        self.told: list[object] = ["reset", np.random.rand()]  # noqa: NPY002 - the one that is seeded

    def prepare(self, video: Video) -> None:
        self.told.append("prepare")

    def step(self, frame: Frame, prompt: ObjectMask | None = None, *, soft_masks: bool = False) -> Segmentation:
        self.told.append(None if prompt is None else sorted(np.unique(prompt)))
        return Segmentation(np.zeros(frame.shape[:2], np.uint8))


def test_the_loop_resets_prepares_and_prompts_once(davis: Path) -> None:
    cat, _ = davis2017(davis)
    witness, sink = Witness(), Sink()
    timing = segment_sequence(witness, cat, sink.write, supervision=Supervision.FIRST_FRAME, seed=3)
    seeded = np.random.RandomState(3).rand()
    assert witness.told == ["reset", seeded, "prepare", [0, 1, 2], None, None, None, None]
    assert list(sink) == ["00000", "00001", "00002", "00003", "00004"]
    assert timing.frames == 5
    assert timing.seconds >= sum(timing.frame_seconds) > 0
    assert timing.peak_memory_bytes > 1 << 20


def test_waiting_for_frames_is_not_the_methods_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that only frames and the method advance."""
    now = 0.0

    class Slow(ArrayFrames):
        def frames(self) -> Generator[Frame, None, None]:
            nonlocal now
            for frame in super().frames():
                now += 2
                yield frame

    class Thinking(Witness):
        def prepare(self, video: Video) -> None:
            nonlocal now
            for _ in video:
                now += 10

    monkeypatch.setattr("time.perf_counter", lambda: now)
    sequence = VideoSequence("slow", Video(Slow(np.zeros((3, 4, 4, 3), np.uint8)), "slow"), {})
    timing = segment_sequence(Thinking(), sequence, Sink().write, supervision=Supervision.NONE)
    assert timing.prepare_seconds == 30
    assert timing.seconds >= 6


def test_a_method_that_is_told_nothing_sees_no_mask(davis: Path) -> None:
    cat, _ = davis2017(davis)
    for path in (davis / "Annotations" / "480p" / "cat").iterdir():
        path.write_bytes(b"not to be read")
    witness = Witness()
    segment_sequence(witness, cat, Sink().write, supervision=Supervision.NONE)
    assert witness.told[2:] == ["prepare", *[None] * 5]


def test_the_callers_random_numbers_go_on(davis: Path) -> None:
    """Validation during training must not make every epoch draw the same random numbers."""
    cat, _ = davis2017(davis)
    seed_everything(5)
    expected = np.random.rand(2).tolist(), torch.rand(1).item(), random.random()  # noqa: NPY002
    seed_everything(5)
    first = np.random.rand()  # noqa: NPY002
    segment_sequence(Witness(), cat, Sink().write, supervision=Supervision.NONE, seed=7)
    assert ([first, np.random.rand()], torch.rand(1).item(), random.random()) == expected  # noqa: NPY002
