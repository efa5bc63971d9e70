"""Fine-tuning on PASCAL VOC 2012: a fully convolutional network of 21 classes on the backbone, evaluated by mIoU.

The paper reports this (its Table 2), but the release holds neither code nor configuration (specification, 10.4). The
recipe here is a stand-in: the segment head with 21 outputs, and settings that follow what is recalled of MoCo's FCN.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate
from torch.optim import SGD
from torch.utils.data import Dataset
from tqdm import tqdm

from amd_objectness.checkpoints import Weights, backbone_state, stored_architecture
from amd_objectness.networks.appearance import SegmentHead
from amd_objectness.networks.backbone import Backbone
from amd_objectness.presets import SemanticSettings
from amd_objectness.settings import Architecture
from vos_shared.checkpoints import safetensors_io
from vos_shared.datasets.voc import VOC_CLASSES
from vos_shared.errors import BadDataset
from vos_shared.layers.imagenet import normalise_images
from vos_shared.layers.quick_convolutions import use_quick_convolutions
from vos_shared.layers.sync_batch_norm import synchronise_batch_norms
from vos_shared.masks import VOID, describe_size
from vos_shared.method import Frame, ObjectMask
from vos_shared.metrics.segmentation import ConfusionMatrix
from vos_shared.results import fingerprint
from vos_shared.training.arguments import RunOptions
from vos_shared.training.batches import EpochOrder
from vos_shared.training.optimisers import power_decay, set_rate
from vos_shared.training.run import TrainingRun, unchanged

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from vos_shared.datasets import VideoSequence

LOG_STEPS: Final = 10
NETWORK: Final = "amd-objectness-fcn"
"""Name of the fine-tuned network in the metadata of its files."""

Sample = dict[str, Tensor]


class FCN(nn.Module):
    """Backbone of output stride 8, followed by two dilated convolutions and a classifier.

    Args:
        architecture: of the network that the backbone comes from.
        classes: number of outputs.
    """

    def __init__(self, architecture: Architecture, classes: int = len(VOC_CLASSES)) -> None:
        super().__init__()
        self.architecture = architecture
        self.backbone = Backbone(architecture.backbone, architecture.width)
        self.head = SegmentHead(self.backbone.channels, classes, architecture.head_width)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images [B, 3, H, W] to class logits [B, 21, H, W]."""
        logits = self.head(self.backbone(images))  # [B, 21, h, w]
        return interpolate(logits, images.shape[-2:], mode="bilinear", align_corners=False)


class Objective(nn.Module):
    """The network and its loss in one module, so that distributed training sees a single forward pass."""

    def __init__(self, model: FCN) -> None:
        super().__init__()
        self.model = model

    def forward(self, sample: Sample) -> Tensor:
        """Mean cross-entropy of the pixels that are not void; 0 where all are."""
        logits = self.model(normalise_images(sample["image"].float() / 255))
        summed = cross_entropy(logits.float(), sample["label"], ignore_index=VOID, reduction="sum")
        return summed / (sample["label"] != VOID).sum().clamp(min=1)


class VocSamples(Dataset[Sample]):
    """Scaled, mirrored and cropped images with their labels, by (step, slot).

    Args:
        sequences: of `vos_shared.datasets.voc.voc2012`.
        settings: of the run.
        slots: samples a step, over all processes.
    """

    def __init__(self, sequences: Sequence[VideoSequence], settings: SemanticSettings, slots: int) -> None:
        self._sequences, self._settings, self._slots = sequences, settings, slots
        self._order = EpochOrder(len(sequences), settings.seed)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """``image``, uint8 [3, crop, crop], and ``label``, int64 [crop, crop] with 255 for void."""
        step, slot = key
        epoch, place = divmod(step * self._slots + slot, len(self._sequences))
        frame, label = image_and_label(self._sequences[self._order(epoch, place)])
        random = np.random.default_rng([self._settings.seed, step, slot])
        frame, label = augmented(frame, label, self._settings, random)
        image = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1).contiguous()
        return {"image": image, "label": torch.from_numpy(label.astype(np.int64))}


def image_and_label(sequence: VideoSequence) -> tuple[Frame, ObjectMask]:
    """The image of a sequence of one frame, uint8 RGB [H, W, 3], and its class ids, uint8 [H, W].

    Raises:
        BadDataset: the image has no label, or a label of another size.
    """
    frame = next(iter(sequence.video))
    label = sequence.annotation(sequence.frame_names[0])
    if label is None or label.shape != frame.shape[:2]:
        what = "no label" if label is None else f"a label that is {describe_size(label.shape)}"
        raise BadDataset(f"image {sequence.name} is {describe_size(frame.shape)} and has {what}")
    return frame, label


def augmented(
    frame: Frame, label: ObjectMask, settings: SemanticSettings, random: np.random.Generator
) -> tuple[Frame, ObjectMask]:
    """Crop the image and its label at a random scale; padding is black in the image and void in the label."""
    scale, crop = random.uniform(*settings.scale), settings.crop
    height, width = (max(round(side * scale), 1) for side in label.shape)
    frame = np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR))
    label = np.asarray(Image.fromarray(label).resize((width, height), Image.Resampling.NEAREST))
    if random.random() < 0.5:
        frame, label = frame[:, ::-1], label[:, ::-1]
    below, right = max(crop - height, 0), max(crop - width, 0)
    frame = np.pad(frame, ((0, below), (0, right), (0, 0)))
    label = np.pad(label, ((0, below), (0, right)), constant_values=VOID)
    top, left = (int(random.integers(side - crop + 1)) for side in label.shape)
    return frame[top : top + crop, left : left + crop], label[top : top + crop, left : left + crop]


def network_for(weights: Weights) -> FCN:
    """The network with a trained backbone and a new head."""
    model = FCN(weights.architecture)
    model.backbone.load_state_dict(backbone_state(weights))
    return model


def finetune(
    model: FCN, sequences: Sequence[VideoSequence], settings: SemanticSettings, options: RunOptions, fabric: Fabric
) -> Path | None:
    """Train to the last step, or until it is asked to stop.

    Args:
        model: holds the start values.
        sequences: the images to train on, with class ids.
        settings: of the run.
        options: the output folder and how often it is written.
        fabric: launched; every process calls this function.

    Returns:
        Path of the last weights, or None if the run was asked to stop early (it can be resumed).

    Raises:
        UserError: as `TrainingRun`; an image or a label cannot be read (the steps before it are saved).
    """
    model.train().to(memory_format=torch.channels_last)
    use_quick_convolutions(model)
    synchronise_batch_norms(model)
    sgd = SGD(
        model.parameters(), settings.learning_rate, momentum=settings.momentum, weight_decay=settings.weight_decay
    )
    objective, optimiser = fabric.setup(Objective(model), sgd)
    with TrainingRun(
        options,
        fabric,
        model,
        optimiser,
        steps=settings.steps,
        seed=settings.seed,
        write_weights=lambda path: save_fcn(path, model, f"{options.data}, {run.step} steps"),
        log_steps=LOG_STEPS,
        must_match=_circumstances(model, sequences, settings),
        remedy="lower --learning-rate",
    ) as run:
        samples = VocSamples(sequences, settings, settings.batch * fabric.world_size)
        for batch in run.batches(samples, settings.batch):
            rate = settings.learning_rate * power_decay(run.step, settings.steps, settings.power)
            set_rate(optimiser, rate)
            loss = objective(batch)
            optimiser.zero_grad()
            fabric.backward(loss)
            optimiser.step()
            run.finished({"train/loss": loss}, {"train/lr": rate})
    return run.result


def _circumstances(model: FCN, sequences: Sequence[VideoSequence], settings: SemanticSettings) -> dict[str, object]:
    """What must be unchanged when a run is resumed."""
    names = fingerprint([sequence.name for sequence in sequences])
    return unchanged(settings) | {
        "network": model.architecture,
        "images (hash of their names)": names,
    }


@torch.inference_mode()
def confusion(model: FCN, sequences: Sequence[VideoSequence], device: torch.device) -> ConfusionMatrix:
    """Count the pixels of whole images by true and predicted class; each image is segmented at its own size."""
    model.eval()
    total = ConfusionMatrix(len(VOC_CLASSES))
    for sequence in tqdm(sequences, desc="mIoU", unit="image", disable=None):
        frame, label = image_and_label(sequence)
        image = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None].to(device)
        predicted = model(normalise_images(image.float() / 255)).argmax(1)[0]
        total.add(label, predicted.to(torch.uint8).cpu().numpy())
    return total


def save_fcn(path: Path, model: FCN, description: str) -> None:
    """Write the fine-tuned network as safetensors."""
    facts = {"network": NETWORK, "architecture": json.dumps(asdict(model.architecture)), "description": description}
    safetensors_io.save(path, model.state_dict(), facts)


def load_fcn(path: Path) -> FCN:
    """Read a file that `save_fcn` wrote; the network is in evaluation mode.

    Raises:
        BadWeights: the file cannot be read, or holds another network.
    """
    state, metadata = safetensors_io.load_network(path, NETWORK)
    with safetensors_io.other_versions_refused(path, NETWORK):
        model = FCN(stored_architecture(metadata))
        model.load_state_dict(state)
    return model.eval()


@dataclass(frozen=True)
class SemanticResult:
    """Accuracy of a fine-tuned network.

    Attributes:
        miou: mean IoU over the classes that occur.
        classes: IoU of each class; NaN for a class that is neither in the truth nor predicted.
    """

    miou: float
    classes: dict[str, float]

    @classmethod
    def of(cls, counts: ConfusionMatrix) -> SemanticResult:
        """Compute the IoU of each class and their mean from the counted pixels of a data set."""
        from vos_shared.metrics.segmentation import mean_known

        iou = counts.iou()
        return cls(mean_known(iou), dict(zip(VOC_CLASSES, iou.tolist(), strict=True)))
