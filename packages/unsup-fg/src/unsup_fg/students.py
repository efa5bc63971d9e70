"""The students on single frames, and together: Multi-Net and Multi-Select-Net (specification, sections 1 and 10.1)."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from unsup_fg.checkpoints import Snapshot, load_weights
from unsup_fg.settings import STUDENTS, NetworkName, StudentName, StudentSettings
from unsup_fg.weights import WEIGHTS
from vos_shared.errors import BadWeights, UserError
from vos_shared.method import Frame, ModelInfo, ObjectMask, Segmentation, Segmenter
from vos_shared.options import settings_from
from vos_shared.runtime.device import autocast, choose_device, choose_precision
from vos_shared.steps import check_step

T = TypeVar("T")

Array = npt.NDArray[Any]
Who = Literal["lowres", "basic-unet", "dense-unet", "dilate-unet", "multi", "multi-select"]

BEST_FIRST: Final[tuple[StudentName, ...]] = ("dilate-unet", "dense-unet", "basic-unet", "lowres")
"""Order in which students are preferred when EvalSeg-Net gives several the same score."""
THRESHOLD: Final = 0.5
"""Pixels with at least this soft mask are foreground, unless the weights state another threshold."""
BATCH: Final = 8
"""Frames in a batch at inference."""
LARGE: Final = 256
"""Side of inputs from which on a processor is fastest with one image at a time: maps of more leave its cache. Four
images at once cost DenseU-Net 1.3 times as much, and save narrow networks of smaller inputs a third (measured)."""
_JOINT_SIZE: Final = 256
"""Side of the maps of ensembles, in pixels."""


class Student:
    """Runs a network on frames.

    Args:
        network: a student or EvalSeg-Net; it is moved to the device.
        size: side of the input of the network, in pixels.
        device: device of the network.
        precision: type of its convolutions.
    """

    def __init__(self, network: nn.Module, size: int, device: torch.device, precision: torch.dtype) -> None:
        self.network = network.eval().to(device).to(memory_format=torch.channels_last)
        self.size, self.device, self.precision = size, device, precision

    def maps(self, frames: Sequence[Frame]) -> Array:
        """Compute maps of frames of any size, float32 [B, s, s], 0 or more; 255 is surely foreground."""
        return self.run(torch.stack([image_tensor(frame, self.size) for frame in frames]))[:, 0]

    @torch.inference_mode()
    def run(self, *inputs: Tensor) -> Array:
        """Run the network on a batch; a processor takes large images one by one."""
        ready = [item.to(self.device).contiguous(memory_format=torch.channels_last) for item in inputs]
        count = 1 if self.device.type == "cpu" and self.size >= LARGE else len(ready[0])
        with autocast(self.device, self.precision):
            outputs = [self.network(*part) for part in zip(*(item.split(count) for item in ready), strict=True)]
        found: Array = torch.cat(outputs).float().cpu().numpy()
        return found


def batched(items: Iterable[T]) -> Iterator[tuple[T, ...]]:
    """Group items into tuples of `BATCH`; the last may be shorter."""
    iterator = iter(items)
    while part := tuple(islice(iterator, BATCH)):
        yield part


def image_tensor(picture: Frame, size: int) -> Tensor:
    """Convert an image to the input of a network: uint8 [H, W, 3] or [H, W] -> float32 [C, size, size] in 0..1."""
    resized = np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.BILINEAR))
    values = np.atleast_3d(resized).astype(np.float32) * np.float32(1 / 255)
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))


def stretched(values: Array) -> Array:
    """Stretch a map from its smallest to its largest value, as the official program does, to uint8."""
    low, high = float(values.min()), float(values.max())
    scale = 255 / ((high - low) or 1)
    return ((values - low) * scale + 0.5).clip(0, 255).astype(np.uint8)


def official_segmentation(raw: Array, size: tuple[int, int]) -> Array:
    """Make the image that the official ``get_segmentation`` writes.

    Args:
        raw: map of LowRes-Net, float32 [32, 32].
        size: height and width of the frame.

    Returns:
        uint8 [H, W].
    """
    picture = Image.fromarray(stretched(np.minimum(raw, 255)))
    return np.asarray(picture.resize(size[::-1], Image.Resampling.BILINEAR))


def multiplied(masks: Sequence[Array]) -> Array:
    """Multi-Net: multiply soft masks in 0..1 and divide by the maximum; if the product is all zero, return the mean."""
    product: Array = np.prod(masks, axis=0)
    mean: Array = np.mean(masks, axis=0)
    return product / product.max() if product.max() > 0 else mean


class StudentSegmenter(Segmenter):
    """Finds the foreground of each frame by itself, object 1.

    Args:
        students: students by name; the soft masks of several are multiplied, or `evalseg` selects one.
        info: parameters and origin of the weights.
        settings: settings of the masks.
        evalseg: EvalSeg-Net.
    """

    def __init__(
        self,
        students: Mapping[StudentName, Student],
        info: ModelInfo,
        settings: StudentSettings | None = None,
        evalseg: Student | None = None,
    ) -> None:
        self.students, self.evalseg = students, evalseg
        self.settings, self._info = settings or StudentSettings(), info
        self.batch = self.settings.batch
        self.reset()

    @property
    def info(self) -> ModelInfo:
        """Parameters and origin of the weights."""
        return self._info

    def reset(self) -> None:
        """Start a new video, which may have another size."""
        self._size: tuple[int, int] | None = None
        self._ahead: deque[tuple[Frame, dict[StudentName, Array]]] = deque()

    def look_ahead(self, frames: Sequence[Frame]) -> None:
        """Compute the maps of the next frames as a batch."""
        maps = {name: student.maps(frames) for name, student in self.students.items()}
        self._ahead.extend((frame, {name: maps[name][index] for name in maps}) for index, frame in enumerate(frames))

    def step(self, frame: Frame, prompt: ObjectMask | None = None, *, soft_masks: bool = False) -> Segmentation:
        """Segment a frame; see `vos_shared.method.Segmenter.step`.

        Raises:
            UserError: a frame of another size than the first, or a prompted object.
        """
        self._size = check_step(frame, prompt, self._size)
        if prompt is not None and prompt.any():
            raise UserError("unsup-fg finds the foreground by itself and takes no objects; leave out the prompt")
        soft = _resized(self.soft_mask(frame), frame.shape[:2])
        mask = (soft >= (self.settings.threshold or THRESHOLD)).astype(np.uint8)
        return Segmentation(mask, soft[None].astype(np.float32) if soft_masks else None)

    def soft_mask(self, frame: Frame) -> Array:
        """Compute the soft mask of a frame at the size of the network's map, float32 in 0..1."""
        found = {name: self._soft_mask_of(values) for name, values in self._maps(frame).items()}
        if len(found) == 1:
            return next(iter(found.values()))
        joint = {name: _resized(mask, (_JOINT_SIZE, _JOINT_SIZE)) for name, mask in found.items()}
        return multiplied(list(joint.values())) if self.evalseg is None else self._best(frame, joint)

    def _maps(self, frame: Frame) -> dict[StudentName, Array]:
        """Maps of the students, float32 [s, s] each; those that `look_ahead` computed, if the frame is the next one."""
        if self._ahead and self._ahead[0][0] is frame:
            return self._ahead.popleft()[1]
        return {name: student.maps([frame])[0] for name, student in self.students.items()}

    def _soft_mask_of(self, values: Array) -> Array:
        values = np.minimum(values, 255)
        return (stretched(values) if self.settings.stretch else values).astype(np.float32) / 255

    def _best(self, frame: Frame, masks: Mapping[StudentName, Array]) -> Array:
        """Multi-Select-Net: select the mask with the highest score of EvalSeg-Net."""
        assert self.evalseg is not None
        names = [name for name in BEST_FIRST if name in masks]
        size = self.evalseg.size
        image = image_tensor(frame, size)
        pictures = [image_tensor((255 * masks[name] + 0.5).astype(np.uint8), size) for name in names]
        scores = self.evalseg.run(image.expand(len(names), -1, -1, -1), torch.stack(pictures))
        return masks[names[int(scores.argmax())]]


def _resized(mask: Array, size: tuple[int, int]) -> Array:
    return np.asarray(Image.fromarray(mask.astype(np.float32)).resize(size[::-1], Image.Resampling.BILINEAR))


def load(
    weights: str | Path | None = None,
    device: str = "auto",
    precision: str = "fp32",
    *,
    student: Who | None = None,
    **options: Any,
) -> StudentSegmenter:
    """Build the segmenter.

    Args:
        weights: of a student, by default those that come with the package; a file of ours, an official checkpoint or
            a name in `WEIGHTS`; for ``multi`` and ``multi-select`` a folder
            with files named after their networks, such as ``dilate-unet.safetensors`` and ``evalseg.safetensors``,
            from which single students are taken as well.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        student: which; by default that of the weights, or of a folder the first of `BEST_FIRST`.
        options: fields of `StudentSettings`.

    Raises:
        UserError: no or unusable weights, device, precision or option.
    """
    settings = settings_from(StudentSettings, options, "unsup-fg")
    target = choose_device(device)
    dtype = choose_precision(precision, target)
    snapshots = _snapshots(weights, student)
    runners = {
        name: Student(item.network, item.architecture.input_size, target, dtype) for name, item in snapshots.items()
    }
    parameters = sum(value.numel() for item in snapshots.values() for value in item.network.parameters())
    described = ", ".join(item.description for item in snapshots.values())
    students = {name: runners[name] for name in STUDENTS if name in runners}
    info = ModelInfo(parameters, described, trained=True)
    if settings.threshold is None and len(snapshots) == 1 and not settings.stretch:
        (snapshot,) = snapshots.values()
        settings = replace(settings, threshold=snapshot.threshold)
    return StudentSegmenter(students, info, settings, runners.get("evalseg"))


def loaded(weights: str | Path | None, expected: Collection[NetworkName], device: str, precision: str) -> Student:
    """Load a single network.

    Args:
        weights: a file, an official checkpoint, a name in `WEIGHTS`, or None for those that come with the package.
        expected: accepted networks.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        precision: ``fp32``, ``bf16`` or ``fp16``.

    Raises:
        UserError: unusable weights, device or precision.
    """
    target = choose_device(device)
    dtype = choose_precision(precision, target)
    snapshot = load_weights(WEIGHTS.locate(weights), expected)
    return Student(snapshot.network, snapshot.architecture.input_size, target, dtype)


def _snapshots(source: str | Path | None, student: Who | None) -> dict[NetworkName, Snapshot]:
    """Load the networks of a variant, by name."""
    weights = WEIGHTS.locate(None) if source is None else Path(source)
    if not weights.is_dir():
        if student in {"multi", "multi-select"}:
            raise BadWeights(
                f"unsup-fg+{student} needs several networks; give --weights FOLDER with a file for each, such as "
                f"{BEST_FIRST[0]}.safetensors"
            )
        expected: Sequence[NetworkName] = STUDENTS if student is None else [student]  # type: ignore[list-item]
        snapshot = load_weights(weights, expected)
        return {snapshot.architecture.network: snapshot}
    there = [name for name in BEST_FIRST if (weights / f"{name}.safetensors").is_file()]
    if not there:
        raise BadWeights(f"{weights} has no weights of a student, such as {BEST_FIRST[0]}.safetensors")
    names: list[NetworkName] = [*there] if student in {"multi", "multi-select"} else [student or there[0]]  # type: ignore[list-item]
    if student == "multi-select":
        names.append("evalseg")
    return {name: load_weights(weights / f"{name}.safetensors", [name]) for name in names}
