"""Running a segmenter over a sequence, with decoding and encoding beside it."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, Protocol

from vos_shared.method import Frame, ObjectMask, Segmenter, SoftMasks, Supervision

if TYPE_CHECKING:
    import torch

    from vos_shared.datasets import VideoSequence


class MaskSink(Protocol):
    """Where masks go: the writer of a `ResultsTree`, or anything alike."""

    def write(self, frame_name: str, mask: ObjectMask, /) -> None:
        """Take the mask of a frame; called on one thread, in order."""


class SoftMaskSink(Protocol):
    """Where soft masks go: a `SoftMaskWriter`, or anything alike."""

    def write(self, frame_name: str, soft_masks: SoftMasks, /) -> None:
        """Take the soft masks of a frame; called on one thread, in order."""


@dataclass(frozen=True)
class SequenceTiming:
    """What one sequence cost.

    Attributes:
        seconds: all together, but for `prepare_seconds`.
        prepare_seconds: thinking about the whole video first, for methods that do; without waiting for its frames.
        frame_seconds: time in the segmenter for each frame, the device waited for.
        decode_seconds: time that frames were waited for; they are decoded ahead on a thread.
        encode_seconds: time the thread that writes masks was busy, beside the segmenter.
        peak_memory_bytes: tensors on a GPU, else the whole process.

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
        """All values and the usual figures from them; seconds, milliseconds, bytes."""
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
    """All sequences together, from what `SequenceTiming.to_json` gave for each; at least one."""
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
    writer: MaskSink,
    *,
    supervision: Supervision,
    device: torch.device | str = "cpu",
    seed: int = 0,
    soft_masks: SoftMaskSink | None = None,
    on_frame: Callable[[], object] = lambda: None,
) -> SequenceTiming:
    """Segment one sequence from its first frame to its last.

    Frames are decoded and masks written on threads of their own while the segmenter works.

    Args:
        segmenter: is reset first.
        sequence: the video, and the masks from which objects are prompted where they first appear.
        writer: takes the mask of each frame.
        supervision: with ``NONE`` no mask of the sequence is read.
        device: where the segmenter computes, for the times.
        seed: of the random numbers; set anew for each sequence, so that no sequence depends on those before it.
        soft_masks: takes the soft masks of each frame; without it none are made.
        on_frame: called after each frame, for progress.

    Raises:
        UserError: from the video, its masks, the segmenter, or the writer.

    """
    from vos_shared.readahead import read_ahead
    from vos_shared.runtime.background import BackgroundThread
    from vos_shared.runtime.memory import peak_memory_bytes, reset_peak
    from vos_shared.runtime.seeding import seed_everything
    from vos_shared.runtime.timing import Stopwatch
    from vos_shared.video import TimedVideo

    seed_everything(seed)
    reset_peak(device)
    segmenter.reset()
    preparing, stepping = Stopwatch(device), Stopwatch(device)
    video = TimedVideo(sequence.video)
    with preparing:
        segmenter.prepare(video)
    started = time.perf_counter()
    frames = _Timed(read_ahead(_prompted_frames(sequence, supervision)))
    with BackgroundThread() as background:
        for frame_name, frame, prompt in frames:
            with stepping:
                segmentation = segmenter.step(frame, prompt, soft_masks=soft_masks is not None)
            background.submit(writer.write, frame_name, segmentation.mask)
            if soft_masks is not None and segmentation.soft_masks is not None:
                background.submit(soft_masks.write, frame_name, segmentation.soft_masks)
            on_frame()
    return SequenceTiming(
        seconds=time.perf_counter() - started + video.seconds,
        prepare_seconds=preparing.seconds - video.seconds,
        frame_seconds=tuple(stepping.laps),
        decode_seconds=frames.seconds + video.seconds,
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


class _Timed:
    """Iterates, and adds up how long each item was waited for."""

    def __init__(self, items: Iterator[_PromptedFrame]) -> None:
        self._items = items
        self.seconds = 0.0

    def __iter__(self) -> Iterator[_PromptedFrame]:
        return self

    def __next__(self) -> _PromptedFrame:
        started = time.perf_counter()
        try:
            return next(self._items)
        finally:
            self.seconds += time.perf_counter() - started
