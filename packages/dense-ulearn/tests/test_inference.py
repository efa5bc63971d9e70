from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torchvision
from torch import Tensor, nn

from dense_ulearn.checkpoints import load_weights
from dense_ulearn.inference import DenseSegmenter, NetworkFeatures, load
from dense_ulearn.networks import DenseNetwork
from dense_ulearn.propagation import LabelPropagation
from dense_ulearn.settings import InferenceSettings, Layer, PropagationSettings
from vos_shared.errors import BadMask, BadVideo, UserError
from vos_shared.method import Frame, ModelInfo, ObjectMask
from vos_shared.runtime.memory import peak_memory_bytes, reset_peak

INFO = ModelInfo(0, "for a test", False)


def colours(frame: Frame) -> Tensor:
    """Features for objects of one colour: the mean colour direction of each 8x8 block."""
    pixels = torch.from_numpy(frame).permute(2, 0, 1)[None].float() - 127
    cells = nn.functional.avg_pool2d(pixels, 8, ceil_mode=True)[0]
    return nn.functional.normalize(cells, dim=0).permute(1, 2, 0)


def moving_square(frames: int = 6, size: tuple[int, int] = (64, 96)) -> tuple[list[Frame], list[ObjectMask]]:
    """A red square on green that moves by half a cell a frame."""
    images, masks = [], []
    for time in range(frames):
        mask = np.zeros(size, np.uint8)
        mask[16:40, 8 + 4 * time : 32 + 4 * time] = 1
        image = np.where(mask[..., None], np.array([230, 30, 30], np.uint8), np.array([30, 230, 30], np.uint8))
        images.append(image)
        masks.append(mask)
    return images, masks


@pytest.fixture(scope="module")
def fixture(parity: Path) -> dict[str, npt.NDArray[np.uint8]]:
    return dict(np.load(parity / "fixture_labelprop.npz"))


@pytest.mark.parametrize(
    ("video", "layer"), [("s2", "res3"), ("s2", "res4"), ("s2", "key"), ("s3", "res4"), ("s3", "key"), ("s4", "res4")]
)
def test_label_maps_equal_the_official_ones(
    video: str,
    layer: Layer,
    fixture: dict[str, npt.NDArray[np.uint8]],
    recipe_network: DenseNetwork,
    device: torch.device,
) -> None:
    """s2: a late object; s3: more frames than the context holds; s4: two frames without any object."""
    settings = InferenceSettings(layer=layer, exact_prompt=False)
    segmenter = DenseSegmenter(NetworkFeatures(recipe_network, layer, device=device), INFO, settings)
    given = {int(time) for time in fixture[f"{video}_tracks"] if time >= 0}
    for time, frame in enumerate(fixture[f"{video}_frames"]):
        prompt = fixture[f"{video}_init_mask_t{time}"] if time in given else None
        result = segmenter.step(frame, prompt, soft_masks=True)
        expected = fixture[f"{video}_{layer}_labels"][time]
        assert (result.mask != expected).sum() == 0, f"frame {time}"


def test_soft_masks_equal_the_official_ones_before_merging(
    fixture: dict[str, npt.NDArray[np.uint8]], recipe_network: DenseNetwork
) -> None:
    """With one reference frame, the propagated labels equal the official program's: s3, 30 frames."""
    features = NetworkFeatures(recipe_network, "res4")
    propagation = LabelPropagation(PropagationSettings())
    masks = torch.from_numpy(fixture["s3_init_mask_t0"] == np.arange(2)[:, None, None]).float()
    with torch.inference_mode():
        for time, frame in enumerate(fixture["s3_frames"]):
            labels = propagation.step(features(frame), *((masks, [0, 1]) if time == 0 else ()))
            if time:
                expected = torch.from_numpy(fixture["s3_res4_soft"][time - 1, :2]).permute(1, 2, 0)
                torch.testing.assert_close(labels, expected, rtol=0, atol=3e-4)


def test_the_shorter_side_becomes_what_is_asked_for() -> None:
    features = NetworkFeatures(load_weights("untrained").network(), input_size=240)
    for height in range(100, 1100):
        resized = features._resized(np.zeros((height, 1200, 3), np.uint8))
        assert resized == (240, 1200 * 240 // height)


@pytest.mark.parametrize("option", [{}, {"layer": "key"}, {"layer": "res3"}, {"input_size": 40}])
@pytest.mark.parametrize("size", [(37, 53), (64, 48), (8, 8)])
def test_masks_have_the_size_of_the_frames(size: tuple[int, int], option: dict[str, Any]) -> None:
    segmenter = load("untrained", "cpu", **option)
    rng = np.random.default_rng(0)
    prompt = np.zeros(size, np.uint8)
    prompt[2:7, 1:6] = 5
    for time in range(3):
        result = segmenter.step(
            rng.integers(0, 256, (*size, 3), np.uint8), prompt if time == 0 else None, soft_masks=True
        )
        assert result.mask.shape == size
        assert result.mask.dtype == np.uint8
        assert set(np.unique(result.mask)) <= {0, 5}
        assert result.soft_masks is not None
        assert result.soft_masks.shape == (5, *size)
        assert result.soft_masks.dtype == np.float32
        assert 0 <= result.soft_masks.min() <= result.soft_masks.max() <= 1


def test_square_of_one_colour_is_followed() -> None:
    """The first mask overlaps with the last true mask by only 0.09."""
    images, masks = moving_square()
    segmenter = DenseSegmenter(colours, INFO)
    for time, (image, mask) in enumerate(zip(images, masks, strict=True)):
        found = segmenter.step(image, mask if time == 0 else None).mask
        overlap = (found & mask).sum() / (found | mask).sum()
        assert overlap == 1 if time == 0 else overlap > 0.6


def test_prompts_are_returned_exactly_or_as_published() -> None:
    """The published program smoothes prompts, and ignores ids that are known already."""
    images, masks = moving_square()
    late = np.zeros_like(masks[3])
    late[50:57, 3:90] = 9
    late[0:3, 0:3] = 1
    for exact in (True, False):
        segmenter = DenseSegmenter(colours, INFO, InferenceSettings(exact_prompt=exact))
        first = segmenter.step(images[0], masks[0]).mask
        assert (first == masks[0]).all() == exact
        segmenter.step(images[1])
        result = segmenter.step(images[2], late).mask
        assert ((result == 9) == (late == 9)).all() == exact
        assert not (result[0:3, 0:3] == 1).any()
        assert (result == 1).any()


def test_nothing_is_found_before_the_first_prompt_and_any_id_after_it() -> None:
    images, masks = moving_square()
    segmenter = DenseSegmenter(colours, INFO)
    assert not segmenter.step(images[0]).mask.any()
    assert not segmenter.step(images[1], np.zeros_like(masks[1])).mask.any()
    assert set(np.unique(segmenter.step(images[2], masks[2] * np.uint8(254)).mask)) == {0, 254}
    assert set(np.unique(segmenter.step(images[3]).mask)) == {0, 254}


def test_two_objects_may_cover_the_first_frame_without_background() -> None:
    images, masks = moving_square()
    segmenter = DenseSegmenter(colours, INFO)
    for time, image in enumerate(images):
        found = segmenter.step(image, masks[0] + np.uint8(1) if time == 0 else None).mask
        assert set(np.unique(found)) == {1, 2}


def test_more_objects_than_any_data_set_has() -> None:
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (128, 128, 3), np.uint8)
    prompt = np.kron(np.arange(1, 65, dtype=np.uint8).reshape(8, 8), np.ones((16, 16), np.uint8))
    segmenter = load("untrained", "cpu")
    segmenter.step(frame, prompt)
    found = segmenter.step(frame).mask
    assert len(np.unique(found)) == 64
    assert (found == prompt).mean() > 0.7


def test_a_second_video_is_not_influenced_by_the_first() -> None:
    images, masks = moving_square()
    segmenter = DenseSegmenter(colours, INFO)
    runs = []
    for _ in range(2):
        segmenter.reset()
        runs.append([segmenter.step(image, masks[0] if time == 0 else None).mask for time, image in enumerate(images)])
    np.testing.assert_array_equal(runs[0], runs[1])


def test_half_precision_changes_next_to_nothing(device: torch.device) -> None:
    """Precision of the convolutions on every device, on a GPU also of the stored features."""
    images, masks = moving_square()
    found = {}
    for precision, place in (("fp32", "cpu"), ("bf16", str(device))):
        segmenter = load("untrained", place, precision)
        for time, image in enumerate(images):
            found[precision] = segmenter.step(image, masks[0] if time == 0 else None).mask
    assert (found["fp32"] != found["bf16"]).mean() < 0.02


def test_features_of_any_network_can_be_plugged_in() -> None:
    backbone = torchvision.models.get_model("mobilenet_v3_small", weights=None).features[:4].eval()

    def features(frame: Frame) -> Tensor:
        images = torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 255
        return nn.functional.normalize(backbone(images)[0], dim=0).permute(1, 2, 0)

    images, masks = moving_square()
    segmenter = DenseSegmenter(features, INFO)
    assert (segmenter.step(images[0], masks[0]).mask == masks[0]).all()
    assert segmenter.step(images[1]).mask.shape == masks[0].shape


def test_a_clip_of_a_thousand_frames_runs_in_flat_memory() -> None:
    """Features of a thousand frames would take 94 MiB, those of the context take 2 MiB."""
    generator = torch.Generator().manual_seed(0)
    frame, mask = np.zeros((48, 64, 3), np.uint8), np.zeros((48, 64), np.uint8)
    mask[10:30, 10:40] = 1
    segmenter = DenseSegmenter(lambda _: torch.rand(6, 8, 512, generator=generator), INFO)
    segmenter.step(frame, mask)
    for time in range(1, 1000):
        if time == 60:
            reset_peak()
            settled = peak_memory_bytes()
        segmenter.step(frame)
    assert peak_memory_bytes() - settled < 16 * 2**20


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_gpu_needs_less_than_two_gibibytes_for_480p(precision: str) -> None:
    """21 context frames; `test_memory.py` measures the same without a GPU, except for cuDNN's memory."""
    rng = np.random.default_rng(0)
    segmenter = load("untrained", "cuda", precision)
    mask = np.zeros((480, 854), np.uint8)
    mask[100:300, 200:400], mask[200:400, 500:700] = 1, 2
    reset_peak("cuda")
    for time in range(24):
        segmenter.step(rng.integers(0, 256, (480, 854, 3), np.uint8), mask if time == 0 else None)
    assert peak_memory_bytes("cuda") < 2 * 2**30


@pytest.mark.parametrize(
    ("frame", "prompt", "error"),
    [
        (np.zeros((8, 8), np.uint8), None, BadVideo),
        (np.zeros((8, 8, 3), np.float32), None, BadVideo),
        (np.zeros((9, 8, 3), np.uint8), None, BadVideo),
        (np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9), np.uint8), BadMask),
        (np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.int64), BadMask),
    ],
)
def test_unusable_frames_and_masks_are_named(frame: Frame, prompt: ObjectMask, error: type[UserError]) -> None:
    segmenter = DenseSegmenter(colours, INFO)
    segmenter.step(np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(error):
        segmenter.step(frame, prompt)


@pytest.mark.parametrize(
    ("option", "text"),
    [({"layer": "res5"}, "res3, res4, key"), ({"input_size": 0}, "--input-size"), ({"contxt": 3}, "no option contxt")],
)
def test_unknown_options_are_named(option: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError, match=text):
        load("untrained", "cpu", **option)
