"""Validation during training: the losses on held-out clips, and label propagation with J and F."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Generator

from dense_ulearn.augmentation import Views
from dense_ulearn.data import ClipDataset
from dense_ulearn.inference import DenseSegmenter, NetworkFeatures
from dense_ulearn.losses import draw_offsets
from dense_ulearn.networks import DenseNetwork, map_size
from dense_ulearn.objective import Objective
from dense_ulearn.pictures import segmentation_picture
from dense_ulearn.settings import InferenceSettings, Layer
from vos_shared.datasets.sequence import VideoSequence
from vos_shared.errors import BadDataset
from vos_shared.evaluation import evaluate
from vos_shared.masks import read_mask, write_mask
from vos_shared.method import ModelInfo, Supervision
from vos_shared.sequence_loop import SegmentedFrame, segment_sequence
from vos_shared.training.batches import load

LAYERS: Final[tuple[Layer, ...]] = ("key", "res4")
"""Layers that are measured; the better one gives the score of a snapshot."""
FRAME_GAP: Final = 2
"""Gap of validation clips; they are always permuted (specification, sections 4 and 5)."""
FEWEST_MASKS: Final = 3
"""Masks that a sequence needs; the first and the last are not scored."""
PICTURED: Final = 4
"""Number of frames of a sequence in its picture."""


@dataclass(frozen=True)
class Measured:
    """Results of a validation.

    Attributes:
        values: by TensorBoard tag.
        pictures: by TensorBoard tag, uint8 RGB [H, W, 3].
        layer: the better of `LAYERS`.
        score: its J&F, 0..1.
    """

    values: Mapping[str, float]
    pictures: Mapping[str, npt.NDArray[np.uint8]]
    layer: Layer
    score: float


@dataclass(frozen=True)
class Validation:
    """Held-out sequences with masks (a DAVIS tree).

    Choose sequences outside of the benchmark's validation set, because their masks choose the snapshot. (The published
    program uses five sequences of DAVIS-2017 val.)

    Attributes:
        sequences: what is segmented.
    """

    sequences: Sequence[VideoSequence]

    @classmethod
    def checked(cls, sequences: Sequence[VideoSequence]) -> Validation:
        """Read all masks once, so that bad ones are found before training.

        Raises:
            UserError: a mask that cannot be read, or a sequence with too few to score.
        """
        for sequence in sequences:
            if len(sequence.annotations) < FEWEST_MASKS:
                raise BadDataset(
                    f"validation: {sequence.name} has {len(sequence.annotations)} masks and needs "
                    f"{FEWEST_MASKS}, as the first and the last are not scored; leave it out"
                )
            prompts = [prompt for _, prompt in sequence.prompts()]
            if all(prompt is None for prompt in prompts):
                raise BadDataset(f"validation: the masks of {sequence.name} hold no object; leave it out")
        return cls(sequences)

    @property
    def names(self) -> str:
        """Names of the sequences, in one line."""
        return ", ".join(sequence.name for sequence in self.sequences)

    def measure(self, objective: Objective) -> Measured:
        """Measure the network; leaves it in evaluation mode."""
        losses, clips = self.losses(objective)
        values = {f"val/{name}": value for name, value in losses.items()}
        pictures = {"val/clips": clips}
        scores: dict[Layer, float] = {}
        for layer in LAYERS:
            propagation = InferenceSettings(layer=layer, temperature=objective.settings.objective.temperature)
            found, segmented = self.segmentation(objective.network, propagation, objective.fabric.device)
            values.update({f"val/{layer}/{name}": value for name, value in found.items()})
            pictures.update({f"val/{layer}/{name}": picture for name, picture in segmented.items()})
            scores[layer] = found["J&F-Mean"]
        layer = max(LAYERS, key=scores.__getitem__)
        return Measured(values, pictures, layer, scores[layer])

    @torch.no_grad()
    def losses(self, objective: Objective) -> tuple[dict[str, float], npt.NDArray[np.uint8]]:
        """The training losses with BatchNorm's running statistics, and a picture of the last batch.

        There is one clip per sequence, the same in each validation.
        """
        settings = objective.settings
        objective.network.eval()
        clips = ClipDataset(
            [sequence.video for sequence in self.sequences],
            replace(settings.sampling, gap=FRAME_GAP, ordered=False),
            settings.augmentation,
            settings.seed,
        )
        keys = [(0, index) for index in range(len(clips))]
        batches = [keys[first : first + settings.batch] for first in range(0, len(keys), settings.batch)]
        generator, found = Generator().manual_seed(settings.seed), []
        for views in load(clips, batches, workers=0):
            found += [self._batch_losses(objective, views, generator)] * len(views.main)
        return {name: sum(losses[name] for losses in found) / len(found) for name in found[0]}, objective.pictures(
            views
        )

    def _batch_losses(self, objective: Objective, views: Views[torch.Tensor], generator: Generator) -> dict[str, float]:
        cells = map_size(objective.settings.augmentation.crop)
        offsets = draw_offsets(len(views.main), cells, cells, objective.settings.objective, generator)
        losses = objective.losses(views, offsets, alone=True)
        return {name: getattr(losses, name).item() for name in ("main", "temp", "cross_key")}

    def segmentation(
        self, network: DenseNetwork, settings: InferenceSettings, device: torch.device
    ) -> tuple[dict[str, float], dict[str, npt.NDArray[np.uint8]]]:
        """J and F of label propagation, 0..1, per object, and a picture of each sequence."""
        features = NetworkFeatures(network, settings.layer, device=device)
        segmenter = DenseSegmenter(features, ModelInfo(0, "in training", trained=True), settings)
        pictures = {}
        with TemporaryDirectory() as results:
            for sequence in self.sequences:
                folder = Path(results) / sequence.name
                folder.mkdir()
                segment_sequence(
                    segmenter,
                    sequence,
                    partial(_write, folder),
                    supervision=Supervision.FIRST_FRAME,
                    device=device,
                )
                pictures[sequence.name] = _picture(sequence, folder)
            scores = evaluate("davis2017", list(self.sequences), results, progress=False)
        return dict(scores.summary), pictures


def _write(folder: Path, item: SegmentedFrame) -> None:
    write_mask(folder / f"{item.name}.png", item.segmentation.mask)


def _picture(sequence: VideoSequence, results: Path) -> npt.NDArray[np.uint8]:
    """A few frames of a segmented sequence, spread over its length."""
    chosen = np.linspace(0, len(sequence.frame_names) - 1, PICTURED + 1).astype(int)[1:]
    names = [sequence.frame_names[index] for index in chosen]
    frames = [sequence.video[int(index)] for index in chosen]
    truth = [sequence.annotation(name) for name in names]
    empty = np.zeros(frames[0].shape[:2], np.uint8)
    found = [read_mask(results / f"{name}.png") for name in names]
    return segmentation_picture(frames, [empty if mask is None else mask for mask in truth], found)
