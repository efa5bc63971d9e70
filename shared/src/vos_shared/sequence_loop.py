"""Running a segmenter over a sequence, while threads decode and encode."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from statistics import median
from typing import TYPE_CHECKING, Any

from vos_shared.method import Frame, ObjectMask, Segmentation, Segmenter, Supervision

if TYPE_CHECKING:
    import torch

    from vos_shared.datasets import VideoSequence


@dataclass(frozen=True)
class SegmentedFrame:
    """A frame of a sequence and its segmentation.

    Attributes:
        index: number of the frame in the sequence, from 0.
        name: name of the frame.
        frame: uint8 RGB [H, W, 3].
        segmentation: result of the segmenter.
    """

    index: int
    name: str
    frame: Frame
    segmentation: Segmentation


@dataclass(frozen=True)
class SequenceTiming:
    """Time and memory of a sequence.

    Attributes:
        seconds: total time without `prepare_seconds`.
        prepare_seconds: time in `prepare`, without waiting for frames.
        frame_seconds: time of the segmenter for each frame, including queued work of the device.
        decode_seconds: time of waiting for frames, which a thread decodes ahead.
        encode_seconds: time that the thread for writing masks was busy, in parallel to the segmenter.
        peak_memory_bytes: peak memory of tensors on a GPU, otherwise of the process.
    """

    seconds: float
    prepare_seconds: float
    frame_seconds: tuple[float, ...]
    decode_seconds: float
    encode_seconds: float
    peak_memory_bytes: int

    @property
    def frames(self) -> int:
        """Number of frames."""
        return len(self.frame_seconds)

    def to_json(self) -> dict[str, Any]:
        """All values and derived figures, in seconds, milliseconds and bytes."""
        return {
            "frames": self.frames,
            "frames_per_second": round(self.frames / (self.seconds + self.prepare_seconds), 3),
            "milliseconds_per_frame": round(1000 * sum(self.frame_seconds) / self.frames, 3),
            "median_milliseconds_per_frame": round(1000 * median(self.frame_seconds), 3),
            "seconds": {
                "total": round(self.seconds + self.prepare_seconds, 4),
                "prepare": round(self.prepare_seconds, 4),
                "decode": round(self.decode_seconds, 4),
                "model": round(sum(self.frame_seconds), 4),
                "encode": round(self.encode_seconds, 4),
            },
            "peak_memory_bytes": self.peak_memory_bytes,
            "frame_milliseconds": [round(1000 * seconds, 3) for seconds in self.frame_seconds],
        }


def total_timing(timings: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The totals over sequences, from `SequenceTiming.to_json` of each (at least one)."""
    rows = list(timings)
    frames = sum(row["frames"] for row in rows)
    seconds = {part: round(sum(row["seconds"][part] for row in rows), 4) for part in rows[0]["seconds"]}
    return {
        "frames": frames,
        "frames_per_second": round(frames / seconds["total"], 3),
        "milliseconds_per_frame": round(1000 * seconds["model"] / frames, 3),
        "seconds": seconds,
        "peak_memory_bytes": max(row["peak_memory_bytes"] for row in rows),
    }


def segment_sequence(
    segmenter: Segmenter,
    sequence: VideoSequence,
    write: Callable[[SegmentedFrame], object],
    *,
    supervision: Supervision,
    device: torch.device | str = "cpu",
    seed: int = 0,
    soft_masks: bool = False,
    on_frame: Callable[[], object] = lambda: None,
) -> SequenceTiming:
    """Segment a sequence from its first frame to its last.

    Frames are decoded and results written on threads while the segmenter works.

    Args:
        segmenter: the segmenter; it is reset first.
        sequence: the video, and the masks that prompt objects where they first appear.
        write: called with the result of each frame, on one thread, in order.
        supervision: with ``NONE``, no mask of the sequence is read.
        device: device of the segmenter, for the times.
        seed: seed of the random generators. It is set for each sequence, so that sequences do not depend on each other;
            the state of the global generators is restored at the end.
        soft_masks: also compute soft masks.
        on_frame: called after each frame, for progress.

    Raises:
        UserError: an error of the video, its masks, the segmenter, or `write`.
    """
    from vos_shared.readahead import read_ahead
    from vos_shared.runtime.background import BackgroundThread
    from vos_shared.runtime.memory import peak_memory_bytes, reset_peak
    from vos_shared.runtime.seeding import seeded
    from vos_shared.runtime.timing import Stopwatch, timed
    from vos_shared.video import TimedVideo

    reset_peak(device)
    preparing, stepping, waiting = Stopwatch(device), Stopwatch(device), Stopwatch()
    video = TimedVideo(sequence.video)
    with seeded(seed), BackgroundThread() as background:
        segmenter.reset()
        with preparing:
            segmenter.prepare(video)
        started = time.perf_counter()
        frames = timed(read_ahead(_prompted_frames(sequence, supervision)), waiting)
        numbered = enumerate(frames)
        while part := list(islice(numbered, segmenter.batch)):
            ahead = [frame for _, (_, frame, _) in part] if len(part) > 1 else []
            for index, (name, frame, prompt) in part:
                with stepping:
                    if ahead:
                        segmenter.look_ahead(ahead)
                        ahead = []
                    segmentation = segmenter.step(frame, prompt, soft_masks=soft_masks)
                background.submit(write, SegmentedFrame(index, name, frame, segmentation))
                on_frame()
    decoding = video.waiting.seconds
    return SequenceTiming(
        seconds=time.perf_counter() - started + decoding,
        prepare_seconds=preparing.seconds - decoding,
        frame_seconds=tuple(stepping.laps),
        decode_seconds=waiting.seconds + decoding,
        encode_seconds=background.busy_seconds,
        peak_memory_bytes=peak_memory_bytes(device),
    )


_PromptedFrame = tuple[str, Frame, ObjectMask | None]


def _prompted_frames(sequence: VideoSequence, supervision: Supervision) -> Generator[_PromptedFrame, None, None]:
    if supervision is Supervision.FIRST_FRAME:
        prompts: Iterator[tuple[str, ObjectMask | None]] = sequence.prompts()
    else:
        prompts = ((frame_name, None) for frame_name in sequence.frame_names)
    for (frame_name, prompt), frame in zip(prompts, sequence.video, strict=True):
        yield frame_name, frame, prompt
