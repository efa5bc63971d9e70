"""Warping, occlusion, photometric terms, the objective and one Adam step against the official program's numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Adam

from amd_objectness.losses import (
    L1_WEIGHT,
    SSIM_WEIGHT,
    Losses,
    Objective,
    Synthesis,
    Views,
    photometric,
    synthesise,
)
from amd_objectness.losses import view_synthesis_loss as loss_of
from amd_objectness.networks import AMD
from amd_objectness.settings import Architecture
from amd_objectness.ssim import distances_and_gradient, structural_distance
from amd_objectness.warping import splat_counts, visibility, warp
from vos_shared.layers import quick_convolutions
from vos_shared.layers.quick_convolutions import use_quick_convolutions
from vos_shared.testing import parity_folder, recipe_tensor


@pytest.fixture(scope="module")
def ops() -> dict[str, Tensor]:
    arrays = np.load(parity_folder("amd-objectness") / "fixture_ops.npz")
    return {name: torch.from_numpy(np.asarray(value)).double() for name, value in arrays.items()}


def test_warping_is_the_official_one(ops: dict[str, Tensor]) -> None:
    warped = warp(ops["im2"], ops["flow"][:, :2])
    torch.testing.assert_close(warped, ops["warp_im2_by_flow01_border"], atol=2e-6, rtol=0)


def test_warping_by_whole_pixels_shifts_and_repeats_the_border() -> None:
    maps = torch.rand(1, 2, 5, 7)
    flow = torch.zeros(1, 2, 5, 7)
    flow[:, 0], flow[:, 1] = 2, -1
    expected = F.pad(maps, (0, 2, 1, 0), mode="replicate")[:, :, :5, 2:]
    torch.testing.assert_close(warp(maps, flow), expected)


def test_occlusion_is_the_official_one(ops: dict[str, Tensor]) -> None:
    flow = ops["flow"][:, 2:]
    torch.testing.assert_close(splat_counts(flow), ops["corr_map_flow23"].clamp(0, 1), atol=5e-6, rtol=0)
    assert torch.equal(1 - visibility(flow), ops["occluded_from_flow23"])


def test_pixels_that_leave_the_frame_fall_on_no_pixel() -> None:
    flow = torch.full((1, 2, 4, 6), 3.0)
    counts = splat_counts(flow)
    assert counts.sum() == 3  # One row and three columns are left.
    assert counts[0, 0, 3, 3:].tolist() == [1, 1, 1]
    assert splat_counts(torch.full((1, 2, 4, 6), -1e6)).sum() == 0


def test_pixels_whose_flow_is_nan_fall_on_no_pixel() -> None:
    flow = torch.zeros(1, 2, 4, 4)
    flow[0, 0, 1, 1], flow[0, 1, 2, 2] = float("nan"), float("inf")
    seen = visibility(flow)
    assert seen[0, 0, 1, 1] == seen[0, 0, 2, 2] == 0
    assert seen[0, 0, 3].all()


def test_photometric_terms_are_the_official_ones(ops: dict[str, Tensor]) -> None:
    distances, _ = distances_and_gradient(ops["im1"], ops["im2"])
    torch.testing.assert_close(distances, ops["ssim_dist_im1_im2"], atol=1e-6, rtol=1e-5)
    made = warp(ops["im2"], ops["flow"][:, :2])
    visible = 1 - ops["occluded_from_flow23"]
    both = Synthesis(*(torch.cat([part, part]) for part in (ops["im1"], made, visible)))
    expected = ops["photometric_im1_vs_warp"].expand(2)
    torch.testing.assert_close(photometric(both), expected, atol=0, rtol=1e-6)


def test_the_loss_of_four_scales_and_its_gradients_are_the_official_ones(ops: dict[str, Tensor]) -> None:
    ops = {name: value.float() for name, value in ops.items()}  # As in the official run.
    images = torch.cat(ops["ms_pair"].split(3, 1))
    flows = [ops[f"ms_flow_{level}"].clone().requires_grad_() for level in range(5)]
    loss = loss_of(images, [torch.cat(flow.split(2, 1)) for flow in flows])
    loss.backward()
    torch.testing.assert_close(loss, ops["ms_loss"], atol=0, rtol=1e-6)
    for level in range(4):
        expected = ops[f"ms_grad_flow_{level}"]
        assert flows[level].grad is not None
        torch.testing.assert_close(flows[level].grad, expected, atol=1e-5 * float(expected.abs().max()), rtol=1e-3)
    assert flows[4].grad is None


def test_identical_frames_without_motion_have_no_loss() -> None:
    image = torch.rand(1, 3, 32, 48)
    flows = [torch.zeros(2, 2, 32 >> level, 48 >> level) for level in range(5)]
    assert loss_of(torch.cat([image, image]), flows) < 1e-6


@dataclass(frozen=True)
class Trained:
    """Forward and backward pass and one step on the official pair.

    `estimates` holds input and output of the estimator at each level, `residuals` the flow of its head, at each level
    first that of the segments, then that of the pixels.
    """

    arrays: Mapping[str, Tensor]
    norms: Mapping[str, float]
    model: AMD
    losses: Losses
    gradients: Mapping[str, Tensor]
    views: Views
    statistics: Mapping[str, Tensor]
    estimates: Sequence[tuple[Tensor, Tensor]]
    residuals: Sequence[Tensor]
    quick: bool


@pytest.fixture(scope="module", params=["plain", "as it trains"])
def trained(request: pytest.FixtureRequest) -> Iterator[Trained]:
    """Forward, backward and one Adam step on the synthetic pair, dropout off; computed once: the networks are large."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quick_convolutions, "LEAST_PIXELS", 0)
        yield trained_once(quick=request.param == "as it trains")


def trained_once(*, quick: bool) -> Trained:
    folder = parity_folder("amd-objectness")
    arrays = {
        name.removeprefix("synth_"): torch.from_numpy(np.asarray(value)).float()
        for name, value in np.load(folder / "fixture_train.npz").items()
    }
    model = AMD().to(arrays["rgb"].dtype)
    model.load_state_dict({name: recipe_tensor(name, tuple(value.shape)) for name, value in model.state_dict().items()})
    model.train().decode_head2.dropout.p = 0
    if quick:
        use_quick_convolutions(model.to(memory_format=torch.channels_last))
    pairs = (arrays["rgb"] / 255).permute(0, 3, 1, 2)[None]  # [1, 2, 3, 128, 128]
    optimiser = Adam(model.parameters(), lr=1e-4, weight_decay=1e-6, fused=quick)
    losses = Objective(model)(pairs)
    statistics = {name: value.clone() for name, value in model.named_buffers()}
    losses.loss.backward()
    gradients = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
    estimates: list[tuple[Tensor, Tensor]] = []
    residuals: list[Tensor] = []
    estimator = model.motion.flow_estimators
    estimator.register_forward_hook(lambda _, given, found: estimates.append((given[0], found)))
    estimator.predict_flow2.register_forward_hook(lambda _, __, found: residuals.append(found))
    with torch.no_grad():
        views = Objective(model).views(pairs, dense=True)
    optimiser.step()
    norms = json.loads((folder / "gradnorm_synth.json").read_text())
    return Trained(arrays, norms, model, losses, gradients, views, statistics, estimates, residuals, quick)


def test_masks_are_the_official_ones(trained: Trained) -> None:
    torch.testing.assert_close(trained.views.masks.transpose(0, 1), trained.arrays["masks"], atol=5e-4, rtol=0)


def test_five_levels_of_segment_flow_are_the_official_ones(trained: Trained) -> None:
    for level, flow in enumerate(trained.views.motion.flows):
        for direction, found in zip(("fw", "bw"), flow, strict=True):
            torch.testing.assert_close(found, trained.arrays[f"flows_{direction}_{level}"], atol=1e-3, rtol=0)


def test_vectors_and_dense_flow_are_the_official_ones(trained: Trained) -> None:
    motion = trained.views.motion
    for index, direction in enumerate(("fw", "bw")):
        expected = trained.arrays[f"flows_{direction}_group"][1:]
        torch.testing.assert_close(motion.vectors[index], expected, atol=1e-3, rtol=0)
        finest = trained.arrays[f"flows_{direction}_all_0_stride8"]
        torch.testing.assert_close(motion.dense[0][index, :, ::8, ::8], finest, atol=1e-3, rtol=0)
        for level in range(1, 5):
            expected = trained.arrays[f"flows_{direction}_all_{level}"]
            torch.testing.assert_close(motion.dense[level][index], expected, atol=1e-3, rtol=0)


def test_each_level_of_the_motion_network_is_the_official_one(trained: Trained) -> None:
    segments, pixels = trained.residuals[::2], trained.residuals[1::2]
    for index, direction in enumerate(("fw", "bw")):
        for level, ((given, found), own, dense) in enumerate(zip(trained.estimates, segments, pixels, strict=True)):
            official = {  # The folder has the first levels only, and for the residuals of the segments all levels.
                "corr": given[index, :81],  # No value is negative: the leaky ReLU changes nothing.
                "estimator_in": given[index],
                "x5": found[index, 64:],
                "segflow_residual": own[index, :, :, 0].T,
                "dense_residual": dense[index],
            }
            for name, value in official.items():
                expected = trained.arrays.get(f"{name}_{direction}_l{level}", value)
                torch.testing.assert_close(value, expected.reshape(value.shape), atol=1e-3, rtol=1e-3)


def test_frames_made_from_each_other_are_the_official_ones(trained: Trained) -> None:
    made = synthesise(trained.views.images.flatten(0, 1), trained.views.motion.flows)
    arrays = trained.arrays
    torch.testing.assert_close(made[0].reconstructions[0], arrays["recons1_s0"], atol=2e-4, rtol=0)
    torch.testing.assert_close(made[0].reconstructions[1, :, ::4, ::4], arrays["recons2_s0_stride4"], atol=2e-4, rtol=0)
    torch.testing.assert_close(made[3].reconstructions[0], arrays["recons1_s3"], atol=2e-4, rtol=0)
    torch.testing.assert_close(made[3].images[0], arrays["im1_s3"], atol=1e-5, rtol=0)
    torch.testing.assert_close(made[0].images[0, :, ::4, ::4], arrays["im1_384x640_stride4"], atol=1e-5, rtol=0)
    for visible, name in zip(made[0].visible, ("occ1_s0", "occ2_s0"), strict=True):
        assert (visible[0] != arrays[name]).float().mean() < 1e-3


@pytest.mark.parametrize("kind", ["seg", "whole"])
def test_each_term_of_the_loss_is_the_official_one(trained: Trained, kind: str) -> None:
    """In both directions at four scales: differences, SSIM, share of visible pixels, their ratio, and its mean."""
    flows = trained.views.motion.flows if kind == "seg" else trained.views.motion.dense
    syntheses = synthesise(trained.views.images.flatten(0, 1), flows)
    for synthesis, row in zip(syntheses, trained.arrays[f"loss_table_{kind}"], strict=True):
        images, made, visible = synthesis
        absolute = L1_WEIGHT * ((images - made).abs() * visible).mean((1, 2, 3))
        structure = SSIM_WEIGHT * structural_distance(made * visible, images * visible)
        ratios = photometric(synthesis)
        terms = torch.stack([absolute, structure, visible.mean((1, 2, 3)), ratios], 1).flatten()
        torch.testing.assert_close(torch.cat([terms, ratios.mean()[None]]), row, atol=0, rtol=3e-5)
    summed = loss_of(trained.views.images.flatten(0, 1), flows)
    torch.testing.assert_close(summed, trained.arrays[f"loss_{kind}"], atol=0, rtol=1e-5)
    torch.testing.assert_close(flows[0].abs().mean(), trained.arrays[f"flow_abs_mean_{kind}"], atol=0, rtol=1e-4)


def test_the_loss_is_the_official_one(trained: Trained) -> None:
    torch.testing.assert_close(trained.losses.loss.detach(), trained.arrays["loss_input_warp_seg"], atol=0, rtol=1e-5)
    assert trained.losses.shares.sum() == pytest.approx(1)


DEEPEST = "backbone2.layer4.2.bn3.weight"


def test_gradients_are_the_official_ones(trained: Trained) -> None:
    assert trained.gradients.keys() == trained.norms.keys()
    for name, gradient in trained.gradients.items():
        assert gradient.norm() == pytest.approx(trained.norms[name], rel=0.02, abs=1e-6), name
    for key, expected in trained.arrays.items():
        if key.startswith("grad/"):
            name = key.removeprefix("grad/")
            # Tiny batch norms deep in the backbone: float32 with PyTorch's convolutions is up to 25 % off float64.
            deep = 0.25 if trained.quick or name == DEEPEST else 0.05
            part = deep if name.startswith("backbone2") else 1e-3
            assert (trained.gradients[name] - expected).abs().max() < part * expected.abs().max(), name


def test_gradients_without_rounding_are_the_official_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those deep in the backbone as well, within what the official program's own rounding changes."""
    monkeypatch.setattr(Tensor, "float", Tensor.double)
    exact = trained_once(quick=False)
    for key, expected in exact.arrays.items():
        if key.startswith("grad/"):
            gradient = exact.gradients[key.removeprefix("grad/")]
            assert gradient.dtype == torch.float64
            assert (gradient - expected).abs().max() < 0.05 * expected.abs().max(), key


def test_statistics_and_one_adam_step_are_the_official_ones(trained: Trained) -> None:
    state = dict(trained.model.named_parameters())
    for key, expected in trained.arrays.items():
        kind, _, name = key.partition("/")
        if kind == "after":
            torch.testing.assert_close(trained.statistics[name], expected, atol=1e-5, rtol=1e-4)
        elif kind == "adam1":
            torch.testing.assert_close(state[name].detach(), expected, atol=2.1e-4, rtol=0)


def test_a_segment_that_is_empty_everywhere_keeps_the_loss_finite() -> None:
    torch.manual_seed(0)
    model = AMD(Architecture("resnet18", motion_size=(64, 64))).train()
    with torch.no_grad():
        bias = model.decode_head2.conv_seg.bias
        assert bias is not None
        bias[:] = torch.tensor([200.0, -200, -200, -200, -200])
    losses = Objective(model)(torch.rand(2, 2, 3, 64, 64))
    losses.loss.backward()
    assert all(bool(value.grad.isfinite().all()) for value in model.parameters() if value.grad is not None)
    assert losses.shares.tolist() == [1, 0, 0, 0, 0]


def test_the_loss_in_mixed_precision_is_close_to_that_in_float32() -> None:
    torch.manual_seed(0)
    model = AMD(Architecture("resnet18", motion_size=(64, 128))).eval()
    pairs = F.interpolate(torch.rand(2, 3, 12, 12), (64, 64), mode="bicubic").clamp(0, 1)[None]
    with torch.no_grad():
        full = Objective(model)(pairs).loss
        with torch.autocast("cpu", torch.bfloat16):
            half = Objective(model)(pairs).loss
    assert half.dtype == torch.float32
    assert half != full
    torch.testing.assert_close(half, full, rtol=0.05, atol=0)
