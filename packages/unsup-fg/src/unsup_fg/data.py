"""Samples of records: resized as TensorFlow does it, and a random crop (specification, section 9)."""

from __future__ import annotations

from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from unsup_fg.presets import TrainingSettings
from unsup_fg.records import EvalSegRecord, Records
from unsup_fg.settings import INPUT_SIZES, Architecture
from vos_shared.training.batches import EpochOrder

Array = npt.NDArray[Any]


class Sample(TypedDict):
    """What a student sees and should draw.

    Attributes:
        image: RGB in 0..1, float32 [3, S, S].
        label: soft mask in 0..255, float32 [1, s, s].
    """

    image: Tensor
    label: Tensor


class StudentSamples(Dataset[Sample]):
    """Crops of records by (step, slot).

    Args:
        records: of students.
        student: who learns from them.
        settings: of the run.
        per_step: samples a step of all processes together.
    """

    def __init__(self, records: Records, student: Architecture, settings: TrainingSettings, per_step: int) -> None:
        self._records, self._student, self._settings, self._per_step = records, student, settings, per_step
        self._order = EpochOrder(len(records), settings.seed, 1)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        step, slot = key
        epoch, place = divmod(step * self._per_step + slot, len(self._records))
        record = self._records.student(self._order(epoch, place))
        resized = self._settings.resized_for(self._student)
        margin = resized - self._student.input_size + 1
        random = np.random.default_rng([self._settings.seed, 2, step, slot])
        top, left = (int(value) for value in random.integers(margin, size=2))
        return student_sample(record.frame, record.soft_mask, self._student, resized, (top, left))


class ScoredSample(TypedDict):
    """What EvalSeg-Net sees and should say.

    Attributes:
        image: RGB in 0..1, float32 [3, 128, 128].
        soft_mask: in 0..1, float32 [1, 128, 128].
        label: how good the mask is, float32 [].
    """

    image: Tensor
    soft_mask: Tensor
    label: Tensor


class EvalSegSamples(Dataset[ScoredSample]):
    """Whole records by (step, slot), resized.

    Args:
        records: of EvalSeg-Net.
        settings: of the run.
        per_step: samples a step of all processes together.
    """

    def __init__(self, records: Records, settings: TrainingSettings, per_step: int) -> None:
        self._records, self._per_step = records, per_step
        self._order = EpochOrder(len(records), settings.seed, 1)

    def __getitem__(self, key: tuple[int, int]) -> ScoredSample:
        epoch, place = divmod(key[0] * self._per_step + key[1], len(self._records))
        return scored_sample(self._records.evalseg(self._order(epoch, place)))


def scored_sample(record: EvalSegRecord) -> ScoredSample:
    """A record as the official code resizes it; JPEG decoders differ by some grey levels."""
    size = INPUT_SIZES["evalseg"]
    image, soft_mask = (
        _planar(legacy_resize(np.atleast_3d(picture).astype(np.float32) * np.float32(1 / 255), size, (0, 0), size))
        for picture in (record.frame, record.soft_mask)
    )
    return {"image": image, "soft_mask": soft_mask, "label": torch.tensor(record.label)}


def student_sample(
    frame: Array, soft_mask: Array, student: Architecture, resized: int, corner: tuple[int, int]
) -> Sample:
    """A crop of a record, exactly as the official code makes it.

    Args:
        frame: uint8 RGB [H, W, 3].
        soft_mask: uint8 [H, W].
        student: gives the sizes of image and label.
        resized: side of the square to which both are resized before the crop.
        corner: row and column of the crop.
    """
    size, target = student.input_size, student.output_size
    image = frame.astype(np.float32) * np.float32(1 / 255)
    crop = legacy_resize(image, resized, corner, size)
    label = legacy_resize(soft_mask[..., None].astype(np.float32), resized, corner, size)
    label = label[:: size // target, :: size // target]  # The legacy resize of whole factors takes single pixels.
    return {"image": _planar(crop), "label": _planar(label)}


def _planar(picture: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))


def legacy_resize(picture: Array, side: int, corner: tuple[int, int], size: int) -> Array:
    """A square crop of a picture that TensorFlow 1 resized to a square, in the order of its operations.

    Args:
        picture: float32 [H, W, C].
        side: of the resized picture.
        corner: row and column of the crop in it.
        size: side of the crop.

    Returns:
        float32 [size, size, C].
    """
    (top, bottom, down), (left, right, along) = (
        _neighbours(cells, side, first, size) for cells, first in zip(picture.shape[:2], corner, strict=True)
    )
    along, down = along[None, :, None], down[:, None, None]
    upper, lower = picture[top], picture[bottom]
    upper = upper[:, left] + (upper[:, right] - upper[:, left]) * along
    lower = lower[:, left] + (lower[:, right] - lower[:, left]) * along
    crop: Array = upper + (lower - upper) * down
    return crop


def _neighbours(cells: int, side: int, first: int, size: int) -> tuple[Array, Array, Array]:
    position = np.arange(first, first + size, dtype=np.float32) * (np.float32(cells) / np.float32(side))
    low = position.astype(np.int64)
    return low, np.minimum(low + 1, cells - 1), position - low.astype(np.float32)
