"""Properties of inference and of online fine-tuning."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from osmn.checkpoints import save_weights
from osmn.data import TrainingSamples
from osmn.guides import Gaussian, dilated_guide, resize_mask
from osmn.inference import OSMNSegmenter, load
from osmn.networks import OSMN, Architecture, initialise
from osmn.online import FirstFrame, fine_tune
from osmn.presets import SampleSettings
from osmn.settings import InferenceSettings, OnlineSettings
from osmn.training import Objective
from vos_shared.errors import BadMask, BadVideo, BadWeights, UserError
from vos_shared.method import ModelInfo
from vos_shared.video import Video

INFO = ModelInfo(0, "made in a test", trained=False)


@pytest.fixture
def segmenter(tiny_model: OSMN) -> OSMNSegmenter:
    return OSMNSegmenter(tiny_model, INFO, InferenceSettings(object_batch=2))


def test_objects_do_not_disturb_each_other(segmenter: OSMNSegmenter) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (3, 64, 96, 3), dtype=np.uint8)
    prompt = np.zeros((64, 96), np.uint8)
    prompt[5:20, 5:25], prompt[30:50, 40:70], prompt[50:60, 5:15] = 1, 2, 4

    def soft(mask: np.ndarray) -> list[np.ndarray]:
        segmenter.reset()
        results = [segmenter.step(frame, mask if t == 0 else None, soft_masks=True) for t, frame in enumerate(frames)]
        return [result.soft_masks for result in results if result.soft_masks is not None]

    together = soft(prompt)
    for key in (1, 2, 4):
        alone = soft(np.where(prompt == key, prompt, np.uint8(0)))
        for ours, theirs in zip(together, alone, strict=True):
            np.testing.assert_allclose(ours[key - 1], theirs[key - 1], atol=1e-5)


def test_new_objects_are_returned_as_they_were_given(segmenter: OSMNSegmenter) -> None:
    frame = np.zeros((33, 47, 3), np.uint8)
    prompt = np.zeros((33, 47), np.uint8)
    prompt[0, 46] = 3
    np.testing.assert_array_equal(segmenter.step(frame, prompt).mask, prompt)


def test_new_objects_win_in_their_own_frame(segmenter: OSMNSegmenter) -> None:
    frame, prompt = np.zeros((33, 47, 3), np.uint8), np.zeros((33, 47), np.uint8)
    prompt[5:20, 5:40] = 1
    segmenter.step(frame, prompt)
    segmenter._propagate = lambda frame, known: [torch.ones(33, 47)]  # type: ignore[method-assign]
    late = np.zeros((33, 47), np.uint8)
    late[10:15, 10:15] = 2
    np.testing.assert_array_equal(segmenter.step(frame, late).mask, np.where(late > 0, late, 1))


def test_crf_leaves_what_is_given_alone(tiny_model: OSMN) -> None:
    pytest.importorskip("pydensecrf")
    segmenter = OSMNSegmenter(tiny_model, INFO, InferenceSettings(shorter_side=16, crf=True))
    frame = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)
    prompt = np.zeros((60, 90), np.uint8)
    prompt[11:29, 13:41], prompt[50, 80] = 1, 2
    np.testing.assert_array_equal(segmenter.step(frame, prompt).mask, prompt)


def test_frames_that_do_not_fit_are_refused(segmenter: OSMNSegmenter) -> None:
    with pytest.raises(BadVideo, match="too small"):
        segmenter.step(np.zeros((4, 90, 3), np.uint8))
    model = OSMN(Architecture("masktrack", spatial=False))
    with pytest.raises(BadVideo, match="100x40 do not fit into the aligned size 80x48"):
        OSMNSegmenter(model, INFO, InferenceSettings(aligned_size=(48, 80))).step(np.zeros((40, 100, 3), np.uint8))


def test_sizes_must_agree(segmenter: OSMNSegmenter) -> None:
    frame = np.zeros((32, 48, 3), np.uint8)
    with pytest.raises(BadMask, match=r"\[30, 48\].*\[32, 48\]"):
        segmenter.step(frame, np.zeros((30, 48), np.uint8))
    segmenter.step(frame)
    with pytest.raises(BadVideo, match="40 wide and 32 high"):
        segmenter.step(frame[:, :40])


def test_one_pixel_and_the_edge_of_the_frame(segmenter: OSMNSegmenter) -> None:
    frames = np.random.default_rng(1).integers(0, 255, (2, 32, 48, 3), dtype=np.uint8)
    for row, column in ((0, 0), (31, 47), (0, 47), (16, 20)):
        prompt = np.zeros((32, 48), np.uint8)
        prompt[row, column] = 1
        segmenter.reset()
        segmenter.step(frames[0], prompt)
        scores = segmenter.step(frames[1], soft_masks=True).soft_masks
        assert scores is not None
        assert np.isfinite(scores).all()


def test_an_object_smaller_than_a_cell_of_the_network_is_not_lost(tiny_model: OSMN) -> None:
    segmenter = OSMNSegmenter(tiny_model, INFO, InferenceSettings(shorter_side=32))
    prompt = np.zeros((128, 192), np.uint8)
    prompt[81, 121] = 1
    assert not resize_mask(prompt > 0, (32, 48)).any()
    segmenter.step(np.zeros((128, 192, 3), np.uint8), prompt)
    assert segmenter._video is not None
    np.testing.assert_array_equal(segmenter._video.objects[1].mask.nonzero(), [[20, 30]])


def test_void_in_a_prompt_is_no_object(segmenter: OSMNSegmenter) -> None:
    prompt = np.zeros((33, 47), np.uint8)
    prompt[5:20, 5:20], prompt[5:20, 20:22] = 1, 255
    mask = segmenter.step(np.zeros((33, 47, 3), np.uint8), prompt).mask
    np.testing.assert_array_equal(mask, np.where(prompt == 255, 0, prompt))


def test_masktrack_at_an_aligned_size_keeps_the_frame_size() -> None:
    torch.manual_seed(0)
    model = OSMN(Architecture("masktrack", spatial=False))
    padded = OSMNSegmenter(model, INFO, InferenceSettings(aligned_size=(48, 80)))
    frame, prompt = np.zeros((40, 70, 3), np.uint8), np.zeros((40, 70), np.uint8)
    prompt[10:20, 10:30] = 1
    padded.step(frame, prompt)
    assert padded.step(frame).mask.shape == (40, 70)
    with pytest.raises(UserError, match="only masktrack"):
        OSMNSegmenter(OSMN(Architecture("lite", head_width=8)), INFO, InferenceSettings(aligned_size=(48, 80)))


def test_shorter_side_and_size_are_alternatives() -> None:
    assert InferenceSettings(shorter_side=240).network_size((480, 854)) == (240, 427)
    assert InferenceSettings(size=(256, 448)).network_size((480, 854)) == (256, 448)
    assert InferenceSettings().network_size((33, 47)) == (33, 47)
    with pytest.raises(UserError, match="not both"):
        InferenceSettings(size=(256, 448), shorter_side=240)
    with pytest.raises(UserError, match="too small"):
        InferenceSettings(shorter_side=8)


@pytest.fixture
def first_frame() -> FirstFrame:
    frame = np.random.default_rng(0).integers(0, 60, (64, 96, 3), dtype=np.uint8)
    mask = np.zeros((64, 96), np.bool_)
    mask[20:44, 30:70] = True
    frame[mask] += 150
    return FirstFrame(frame, mask)


def test_fine_tuning_learns_the_first_frame_and_leaves_the_start_alone(
    first_frame: FirstFrame, device: torch.device
) -> None:
    torch.manual_seed(0)
    model = initialise(OSMN(Architecture("lite", head_width=8))).eval().to(device)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    samples, state = SampleSettings((64, 96), (1.0,), 0.00787), torch.get_rng_state()
    tuned = fine_tune(model, first_frame, samples, OnlineSettings(iterations=12, learning_rate=1e-3))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    again = fine_tune(model, first_frame, samples, OnlineSettings(iterations=12, learning_rate=1e-3))
    assert torch.equal(torch.get_rng_state(), state)
    if device.type == "cpu":  # Kernels of a GPU add up in any order.
        assert all(torch.equal(value, again.state_dict()[name]) for name, value in tuned.state_dict().items())
    sample = {
        name: value[None].to(device) for name, value in TrainingSamples(first_frame, samples, 1, seed=9)[0, 0].items()
    }
    with torch.no_grad():
        untuned, learned = (float(Objective(network)(sample)[0]) for network in (model, tuned))
    assert learned < 0.9 * untuned


@pytest.mark.parametrize("iterations", [1, 5])
def test_fine_tuning_that_diverges_leaves_nothing(
    iterations: int, first_frame: FirstFrame, tiny_weights: Path, tmp_path: Path
) -> None:
    segmenter = load(
        tiny_weights, "cpu", online=True, iterations=iterations, scales=(1.0,), models=tmp_path, learning_rate=1e30
    )
    segmenter.prepare(Video.open(first_frame.frame[None]))
    with pytest.raises(UserError, match="lower --learning-rate"):
        segmenter.step(first_frame.frame, first_frame.mask.astype(np.uint8))
    assert not list(tmp_path.iterdir())


def test_fine_tuned_networks_are_kept_and_made_anew_when_the_frame_changes(
    first_frame: FirstFrame, tiny_weights: Path, tmp_path: Path
) -> None:
    video = Video.open(np.stack([first_frame.frame] * 2))
    prompt = first_frame.mask.astype(np.uint8)

    def run(image: np.ndarray, iterations: int = 2) -> tuple[np.ndarray, dict[Path, int]]:
        segmenter = load(tiny_weights, "cpu", online=True, iterations=iterations, scales=(1.0,), models=tmp_path)
        segmenter.prepare(video)
        segmenter.step(image, prompt)
        scores = segmenter.step(image, soft_masks=True).soft_masks
        assert scores is not None
        return scores, {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}

    first, again = run(first_frame.frame), run(first_frame.frame)
    np.testing.assert_array_equal(first[0], again[0])
    assert len(first[1]) == 1
    assert first[1] == again[1]
    # Networks of another frame and of other settings are kept as well.
    run(first_frame.frame[:, ::-1].copy())
    kept = run(first_frame.frame, iterations=3)[1]
    assert len(kept) == 3
    assert first[1].items() <= kept.items()


def test_weights_bring_their_scale_and_frame_size(tiny_model: OSMN, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(path, tiny_model, 0.25, {"shorter_side": "40"})
    segmenter = load(path, "cpu")
    assert (segmenter.settings.scale_value, segmenter.normalise.scale) == (0.25, 0.25)
    assert segmenter.settings.network_size((80, 120)) == (40, 60)
    stronger = load(path, "cpu", scale_value=0.5, size=(32, 48)).settings
    assert (stronger.scale_value, stronger.network_size((80, 120))) == (0.5, (32, 48))
    halved = tmp_path / "half.safetensors"
    save_weights(halved, tiny_model, 0.25, {}, half=True)
    assert halved.stat().st_size < 0.6 * path.stat().st_size


def test_masktrack_is_guided_by_the_mask_and_others_by_a_gaussian(
    first_frame: FirstFrame, tiny_model: OSMN, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def watching(model: OSMN) -> OSMNSegmenter:
        def forward(image: torch.Tensor, spatial: torch.Tensor, *_: object) -> torch.Tensor:
            seen.append(spatial[0, 0].numpy())
            return torch.zeros(len(spatial), 1, *image.shape[-2:])

        monkeypatch.setattr(model, "__deepcopy__", lambda _: model, raising=False)  # A copy would not call the spy.
        monkeypatch.setattr(model, "forward", forward)
        return OSMNSegmenter(model, INFO)

    with torch.device("meta"):
        masktrack = OSMN(Architecture("masktrack", spatial=False, visual=False))
    monkeypatch.setattr(masktrack, "to", lambda *_, **__: masktrack)
    monkeypatch.setattr(masktrack, "visual_modulation", lambda _: None)
    for model in (masktrack, tiny_model):
        segmenter = watching(model)
        segmenter.step(first_frame.frame, first_frame.mask.astype(np.uint8))
        segmenter.step(first_frame.frame)
    np.testing.assert_array_equal(seen[0], dilated_guide(first_frame.mask))
    gaussian = Gaussian.of(first_frame.mask)
    assert gaussian is not None
    np.testing.assert_allclose(seen[1], gaussian.render(first_frame.mask.shape), atol=1e-6)
    assert set(np.unique(seen[0])) == {0, 255}


def test_networks_tuned_from_other_weights_are_not_taken(
    first_frame: FirstFrame, tiny_weights: Path, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    other = tmp_path / "other.safetensors"
    save_weights(other, initialise(OSMN(Architecture("lite", head_width=8))), 0.00787, {})
    for weights in (tiny_weights, other):
        segmenter = load(weights, "cpu", online=True, iterations=1, scales=(1.0,), models=tmp_path / "models")
        segmenter.prepare(Video.open(first_frame.frame[None]))
        segmenter.step(first_frame.frame, first_frame.mask.astype(np.uint8))
    assert len(list((tmp_path / "models").rglob("*.safetensors"))) == 2


def test_weights_that_are_not_ours_are_no_place_for_a_fine_tuned_network(
    first_frame: FirstFrame, tiny_weights: Path, tmp_path: Path
) -> None:
    def run() -> None:
        segmenter = load(tiny_weights, "cpu", online=True, iterations=1, scales=(1.0,), models=tmp_path)
        segmenter.prepare(Video.open(first_frame.frame[None]))
        segmenter.step(first_frame.frame, first_frame.mask.astype(np.uint8))

    run()
    (kept,) = tmp_path.rglob("*.safetensors")
    kept.write_bytes(tiny_weights.read_bytes())
    with pytest.raises(BadWeights, match="choose another --models"):
        run()
    assert kept.read_bytes() == tiny_weights.read_bytes()


def test_guides_are_cut_from_sharper_frames(first_frame: FirstFrame, tiny_weights: Path, tmp_path: Path) -> None:
    video = Video.open(np.stack([first_frame.frame] * 2), name="clip")
    prompt = first_frame.mask.astype(np.uint8)

    def scores(folder: Path | None) -> np.ndarray:
        segmenter = load(tiny_weights, "cpu", guide_frames=folder)
        assert segmenter.model.modulator is not None
        gammas: list[torch.Tensor] = []
        segmenter.model.modulator.register_forward_pre_hook(lambda module, inputs: gammas.append(inputs[0]))
        segmenter.prepare(video)
        segmenter.step(first_frame.frame, prompt)
        return gammas[0].numpy()

    with pytest.raises(BadVideo, match=r"clip.00000\.jpg"):
        scores(tmp_path)
    (tmp_path / "clip").mkdir()
    Image.fromarray(first_frame.frame).resize((192, 128), Image.Resampling.NEAREST).save(
        tmp_path / "clip" / "00000.png"
    )
    plain, sharp = scores(None), scores(tmp_path)
    assert plain.shape == sharp.shape == (1, 3, 224, 224)
    assert not np.array_equal(plain, sharp)
    # The same picture of noise, up to resampling and the border that the official crop lacks.
    assert np.corrcoef(plain.ravel(), sharp.ravel())[0, 1] > 0.6
    before = load(tiny_weights, "cpu", guide_frames=tmp_path).info.weights
    assert load(tiny_weights, "cpu", guide_frames=tmp_path).info.weights == before
    Image.fromarray(first_frame.frame).save(tmp_path / "clip" / "00000.png")
    assert load(tiny_weights, "cpu", guide_frames=tmp_path).info.weights != before  # Results become stale.


def test_options_of_fine_tuning_need_fine_tuning(tiny_weights: Path) -> None:
    with pytest.raises(UserError, match=r"iterations.*osmn\+online"):
        load(tiny_weights, "cpu", iterations=3)
    with pytest.raises(UserError, match="--iterations is 0"):
        load(tiny_weights, "cpu", online=True, iterations=0)
    segmenter = load(tiny_weights, "cpu", online=True, scales=(0.5,))
    with pytest.raises(UserError, match="too small to fine-tune on at scale"):
        segmenter.step(np.zeros((32, 32, 3), np.uint8), np.ones((32, 32), np.uint8))
    with pytest.raises(UserError, match="no option radius"):
        load(tiny_weights, "cpu", radius=3)


def test_the_callers_model_stays_as_it_is(tiny_model: OSMN) -> None:
    tiny_model.train()
    before = {name: value.clone() for name, value in tiny_model.state_dict().items()}
    segmenter = OSMNSegmenter(tiny_model, INFO, InferenceSettings(shorter_side=32))
    frame = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    prompt = np.zeros((40, 60), np.uint8)
    prompt[5:20, 10:30] = 1
    segmenter.step(frame, prompt)
    segmenter.step(frame)
    assert tiny_model.training
    convolution = tiny_model.seg.get_parameter("blocks.0.pointwise.conv.weight")
    assert convolution.is_contiguous()
    assert all(torch.equal(value, before[name]) for name, value in tiny_model.state_dict().items())
