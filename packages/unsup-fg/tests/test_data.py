"""Samples: the official preprocessing, and what a run sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from unsup_fg.colours import hsv
from unsup_fg.data import StudentSamples, legacy_resize, scored_sample, student_sample
from unsup_fg.networks.streams import differences, hue
from unsup_fg.presets import PUBLISHED, TrainingSettings
from unsup_fg.records import Records, StudentRecord
from unsup_fg.settings import Architecture, StudentName
from unsup_fg.tfrecords import RecordWriter
from vos_shared.layers.tensorflow import resize_legacy_bilinear
from vos_shared.testing import parity_folder


@pytest.mark.parametrize(
    ("student", "official", "corner"),
    [
        ("lowres", "lowres", (9, 17)),
        ("basic-unet", "basicunet", (20, 33)),
        ("dense-unet", "denseunet", (20, 33)),
        ("dilate-unet", "dilateunet", (20, 33)),
    ],
)
def test_preprocessing_is_official(student: StudentName, official: str, corner: tuple[int, int]) -> None:
    """Image and label bit by bit, gradients and hue to rounding."""
    with np.load(parity_folder("unsup-fg") / "fixture_preprocessing.npz") as arrays:
        if f"{official}/0/image" not in arrays:
            pytest.skip(f"no numbers of {official}")
        for index in range(3):
            frame, soft_mask = arrays[f"src/{index}/u8"], arrays[f"src/{index}/seg"].squeeze()
            sample = student_sample(frame, soft_mask, Architecture(student), PUBLISHED[student].resized, corner)
            image, label = sample["image"].permute(1, 2, 0).numpy(), sample["label"].permute(1, 2, 0).numpy()
            np.testing.assert_array_equal(image, arrays[f"{official}/{index}/image"])
            np.testing.assert_array_equal(label, arrays[f"{official}/{index}/label"])
            gradients = differences(sample["image"][None])[0].permute(1, 2, 0).numpy()
            np.testing.assert_allclose(gradients, arrays[f"{official}/{index}/differences"], rtol=0, atol=2e-7)
            off = np.abs(hue(sample["image"][None])[0].permute(1, 2, 0).numpy() - arrays[f"{official}/{index}/hue"])
            assert np.minimum(off, 1 - off).max() <= 2e-7


def test_preprocessing_of_evalseg_is_official() -> None:
    """The soft mask bit by bit; the image within what JPEG decoders differ."""
    records = Records(parity_folder("unsup-fg") / "example_evalseg.tfrecords")
    with np.load(parity_folder("unsup-fg") / "fixture_preprocessing.npz") as arrays:
        for index in range(3):
            sample = scored_sample(records.evalseg(index))
            image, soft_mask = (sample[name].permute(1, 2, 0).numpy() for name in ("image", "soft_mask"))
            np.testing.assert_array_equal(soft_mask, arrays[f"evalseg/{index}/soft_seg"])
            assert np.abs(image - arrays[f"evalseg/{index}/image"]).max() <= 15.01 / 255
            assert sample["label"].item() == arrays[f"evalseg/{index}/label"].item()
            official = torch.from_numpy(arrays[f"evalseg/{index}/image"]).permute(2, 0, 1)[None]
            found = torch.stack(hsv(official), 1)[0].permute(1, 2, 0).numpy()
            off = np.abs(found - arrays[f"evalseg/{index}/hsv"])
            assert np.minimum(off, 1 - off).max() <= 5e-7


def test_the_crop_is_of_the_legacy_resize() -> None:
    picture = np.random.default_rng(0).random((50, 40, 3), np.float32)
    whole = resize_legacy_bilinear(torch.from_numpy(picture).permute(2, 0, 1)[None], (70, 70))[0].permute(1, 2, 0)
    np.testing.assert_allclose(legacy_resize(picture, 70, (5, 11), 32), whole[5:37, 11:43].numpy(), atol=5e-6)


def test_gradients_are_those_of_numpy() -> None:
    image = torch.rand(1, 3, 9, 7)
    grey = (image[0] * torch.tensor([0.2989, 0.587, 0.114])[:, None, None]).sum(0).numpy()
    np.testing.assert_allclose(differences(image)[0].numpy(), np.stack(np.gradient(grey)), atol=1e-6)


def test_an_epoch_sees_each_record_once_and_crops_differ(tmp_path: Path) -> None:
    with RecordWriter([tmp_path / "train-00000-of-00001"]) as writer:
        for value in range(6):
            frame = np.zeros((256, 256, 3), np.uint8)
            frame[..., 1] = np.arange(256)
            record = StudentRecord.of(str(value), frame, np.full((256, 256), 40 * value, np.uint8))
            writer.write(0, record.example())
    samples = StudentSamples(
        Records(tmp_path), Architecture("lowres"), TrainingSettings(steps=9, batch=2, resized=160), 2
    )
    epochs = [[samples[step, slot] for step in range(3 * epoch, 3 * epoch + 3) for slot in (0, 1)] for epoch in (0, 1)]
    for epoch in epochs:
        assert sorted(item["label"].mean().item() for item in epoch) == [0, 40, 80, 120, 160, 200]
        assert epoch[0]["image"].shape == (3, 128, 128)
        assert epoch[0]["label"].shape == (1, 32, 32)
    assert len({item["image"][1, 0, 0].item() for epoch in epochs for item in epoch}) > 1
    again = samples[1, 1]
    assert torch.equal(again["image"], epochs[0][3]["image"])


@pytest.mark.parametrize("side", [None, 128, 32])
def test_crops_of_small_inputs_show_as_much_of_the_frame(tmp_path: Path, side: int | None) -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None], 256, 0)
    with RecordWriter([tmp_path / "train-00000-of-00001"]) as writer:
        writer.write(0, StudentRecord.of("ramp", np.repeat(ramp[..., None], 3, 2), ramp).example())
    student = Architecture("dilate-unet", side=side)
    image = StudentSamples(Records(tmp_path), student, PUBLISHED["dilate-unet"], 2)[0, 0]["image"]
    shown = 255 * float(image.max() - image.min())
    assert shown == pytest.approx(255 * 256 / 310, abs=8)
