"""Training clips: which frames of which video, in which order, and the loader that hands them to the loop.

Every draw follows from (seed, epoch, clip), never from what was drawn before, so that a run can stop and go on anywhere
and more loader workers change nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from dense_ulearn.augmentation import ClipViews, Views, make_views
from dense_ulearn.presets import Augmentation, Sampling
from vos_shared.errors import BadDataset
from vos_shared.training import leave_process_group, worker_items
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
    """Clips by (epoch, index): each index below the number of videos is one video, drawn anew in every epoch.

    Args:
        videos: whose single frames are cheap to read: image files, not video files.
        sampling: which frames make a clip.
        augmentation: how they become two views.
        seed: of all draws.
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


class ClipBatches(Sampler[list[tuple[int, int]]]):
    """The keys of one rank's batches, from any step to the end of training.

    Every epoch visits every video `clips_per_video` times in an order of its own; the last partial batch is dropped.
    """

    def __init__(
        self,
        videos: int,
        batch: int,
        epochs: int,
        seed: int,
        *,
        start: int = 0,
        clips_per_video: int = 1,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """Plan the batches.

        Args:
            videos: how many there are.
            batch: clips per rank and step.
            epochs: how many epochs in all.
            seed: of the orders.
            start: first step to hand out, counted from the beginning of training.
            clips_per_video: visits to a video in one epoch.
            rank: this process.
            world: number of processes.

        Raises:
            BadDataset: not enough videos for one batch.
        """
        self.clips = videos * clips_per_video
        self.batch, self.seed, self.start, self.rank, self.world = batch, seed, start, rank, world
        self.steps_per_epoch = self.clips // (batch * world)
        if not self.steps_per_epoch:
            raise BadDataset(
                f"training: {self.clips} clips do not fill one batch of {batch * world}; add videos, lower the batch "
                "or raise the clips per video"
            )
        self.steps = epochs * self.steps_per_epoch

    def __len__(self) -> int:
        return self.steps - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        step = self.start
        while step < self.steps:
            epoch, done = divmod(step, self.steps_per_epoch)
            order = np.random.default_rng((self.seed, epoch)).permutation(self.clips)
            for position in range(done, self.steps_per_epoch):
                first = (position * self.world + self.rank) * self.batch
                yield [(epoch, int(index)) for index in order[first : first + self.batch]]
                step += 1


def clip_batches(
    dataset: ClipDataset, keys: Iterable[list[tuple[int, int]]], workers: int
) -> Iterator[Views[Tensor]]:  # fmt: skip
    """Batches of views as tensors, uint8 [B, T, 3, S, S] twice and float32 [B, 2, 3].

    Args:
        dataset: what makes the clips.
        keys: (epoch, index) of the clips of each batch.
        workers: processes that read ahead; 0 reads in this one.

    Raises:
        BadVideo: a frame cannot be read.
    """
    loader: DataLoader[ClipViews] = DataLoader(
        dataset,
        batch_sampler=keys if isinstance(keys, Sampler) else list(keys),
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=leave_process_group,
    )
    yield from worker_items(loader)
