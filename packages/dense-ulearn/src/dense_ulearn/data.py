"""Training clips: which frames of which video, in which order.

Random draws depend on (seed, epoch, clip) alone and not on earlier draws. So a run can resume anywhere, and the number
of loader workers does not matter.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from dense_ulearn.augmentation import ClipViews, make_views
from dense_ulearn.presets import Augmentation, Sampling, TrainingSettings
from vos_shared.errors import BadDataset
from vos_shared.training.batches import EpochOrder
from vos_shared.video import Video


def sample_ids(length: int, sampling: Sampling, rng: np.random.Generator) -> list[int]:
    """Draw the frames of a clip from a video of `length` frames, at least `sampling.frames`."""
    frames = sampling.frames
    window = min(length, sampling.gap * frames)
    if sampling.ordered:
        start = int(rng.integers(0, length - window, endpoint=True))
        return [start + index * window // frames for index in range(frames)]
    step = window // frames
    start = int(rng.integers(0, length - 1 - (frames - 1) * step, endpoint=True))
    return [start + step * int(index) for index in rng.permutation(frames)]


class ClipDataset(Dataset[ClipViews]):
    """Clips by (epoch, index): the index names the video, and every epoch draws another clip of it.

    Args:
        videos: single frames must be cheap to read, so image files and not video files.
        sampling: which frames make a clip.
        augmentation: how the frames become two views.
        seed: of all random draws.
    """

    def __init__(self, videos: Sequence[Video], sampling: Sampling, augmentation: Augmentation, seed: int) -> None:
        self.videos = videos
        self.sampling = sampling
        self.augmentation = augmentation
        self.seed = seed

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, key: tuple[int, int]) -> ClipViews:
        """Both views of the clip that epoch `key[0]` takes from video `key[1]` (modulo the number of videos)."""
        epoch, index = key
        rng = np.random.default_rng((self.seed, epoch, index))
        video = self.videos[index % len(self.videos)]
        ids = sample_ids(len(video), self.sampling, rng)
        return make_views([Image.fromarray(video[index]) for index in ids], self.augmentation, rng)


def steps_per_epoch(settings: TrainingSettings, videos: int, processes: int) -> int:
    """Steps in which an epoch visits every video `clips_per_video` times; the last partial batch is dropped.

    Raises:
        BadDataset: not enough videos for one batch.
    """
    clips, batch = videos * settings.clips_per_video, settings.batch * processes
    if clips < batch:
        raise BadDataset(
            f"training: {clips} clips do not fill one batch of {batch}; add videos, lower the batch or raise the clips "
            "per video"
        )
    return clips // batch


class TrainingClips(Dataset[ClipViews]):
    """The clips of a run by (step, slot); each epoch visits the videos in another order.

    Args:
        clips: by (epoch, index).
        settings: of the run.
        processes: number of processes that train together.
    """

    def __init__(self, clips: ClipDataset, settings: TrainingSettings, processes: int) -> None:
        self._clips = clips
        self._batch = settings.batch * processes
        self._steps = steps_per_epoch(settings, len(clips), processes)
        self._order = EpochOrder(len(clips) * settings.clips_per_video, settings.seed)

    def __getitem__(self, key: tuple[int, int]) -> ClipViews:
        """Both views of the clip at a slot of a step."""
        step, slot = key
        epoch, position = divmod(step, self._steps)
        return self._clips[epoch, self._order(epoch, position * self._batch + slot)]
