"""Networks: the official program's numbers, and properties that do not need them."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet18, resnet50

from amd_objectness.losses import view_synthesis_loss
from amd_objectness.networks import AMD, Backbone, SegmentHead, correlation
from amd_objectness.networks.frozen import FrozenAppearance
from amd_objectness.networks.motion import FlowEstimator, MotionNetwork, pool_segments, standardised
from amd_objectness.settings import Architecture, BackboneName
from vos_shared.errors import UserError
from vos_shared.layers.winograd import WinogradConvolution
from vos_shared.testing import recipe_tensor


def tensors(path: Path) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.asarray(value)).float() for name, value in np.load(path).items()}


def damped(recipe_a: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of recipe B, from those of recipe A."""
    return {name: 0.2 * value if name.endswith("bn3.weight") else value for name, value in recipe_a.items()}


def plain_correlation(first: Tensor, second: Tensor) -> Tensor:
    """The correlation, one displacement after the other."""
    height, width = first.shape[2:]
    padded = F.pad(second, (4, 4, 4, 4))
    moved = [padded[:, :, dy : dy + height, dx : dx + width] for dy in range(9) for dx in range(9)]
    return torch.stack([(first * other).mean(1) for other in moved], 1)


def test_the_networks_have_the_official_keys(parity: Path) -> None:
    with torch.device("meta"):
        model = AMD()
    official = {entry["key"]: entry["shape"] for entry in json.loads((parity / "keys.json").read_text())}
    assert {name: list(value.shape) for name, value in model.state_dict().items()} == official
    parameters = {
        part: sum(value.numel() for name, value in model.named_parameters() if name.startswith(part))
        for part in ("backbone2.", "decode_head.flownet.", "decode_head2.")
    }
    assert list(parameters.values()) == [23_508_032, 1_721_714, 5_310_725]


def test_initial_weights_have_the_official_moments(parity: Path) -> None:
    torch.manual_seed(0)
    state = AMD().state_dict()
    for name, (mean, deviation) in json.loads((parity / "init_stats_seed0.json").read_text()).items():
        value = state[name].double()
        if value.numel() == 1 or deviation == 0:
            assert value.mean() == mean, name
            continue
        error = 6 * deviation / value.numel() ** 0.5  # Both are samples of the same distribution.
        assert abs(value.mean() - mean) < error, name
        assert abs(value.std() - deviation) < error, name


@pytest.mark.parametrize("recipe", ["A", "B"])
@pytest.mark.parametrize("image", ["small", "odd"])
def test_segments_are_the_official_ones(
    parity: Path, recipe_state: dict[str, Tensor], recipe_model: AMD, recipe: str, image: str
) -> None:
    found = tensors(parity / "fixture_seg.npz")
    if recipe == "B":
        recipe_model.load_state_dict(damped(recipe_state))
    images = (found[f"{image}_rgb"] / 255).permute(2, 0, 1)[None]
    with torch.inference_mode():
        computed = [recipe_model(images), FrozenAppearance(recipe_model)(images)]
        stages = recipe_model.backbone2.stages(found[f"{image}_x"])
        head = recipe_model.decode_head2.convs[0](stages[-1])[:, :8]
    expected = found[f"{recipe}_{image}_eval_logits"]
    for logits in computed:
        assert (logits - expected).abs().max() < (1e-5 * expected.abs().max() if recipe == "A" else 1e-4)
        if recipe == "B":
            torch.testing.assert_close(logits.softmax(1), found[f"B_{image}_eval_softmax"], atol=5e-5, rtol=0)
    expected = found[f"{recipe}_{image}_eval_head0_first8"].view_as(head)
    assert (head - expected).abs().max() < 2e-5 * expected.abs().max()
    for stage, name in zip(stages, ("c2", "c3", "c4", "c5"), strict=True):
        torch.testing.assert_close(
            stage.mean((0, 2, 3)), found[f"{recipe}_{image}_eval_{name}_mean"], rtol=1e-4, atol=1e-4
        )
        if image == "small":
            expected = found[f"{recipe}_{image}_eval_{name}_first8"].view_as(stage[:, :8])
            assert (stage[:, :8] - expected).abs().max() < 2e-5 * stage.abs().max()


def test_segments_of_a_real_frame_are_the_official_ones(
    parity: Path, recipe_state: dict[str, Tensor], recipe_model: AMD
) -> None:
    found = tensors(parity / "fixture_seg.npz")
    recipe_model.load_state_dict(damped(recipe_state))
    with torch.inference_mode():
        logits = recipe_model.decode_head2(recipe_model.backbone2(found["real_x"]))
    torch.testing.assert_close(logits, found["B_real_eval_logits"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("recipe", ["A", "B"])
def test_a_batch_in_training_mode_shares_its_statistics(
    parity: Path, recipe_state: dict[str, Tensor], recipe_model: AMD, recipe: str
) -> None:
    found = tensors(parity / "fixture_seg.npz")
    if recipe == "B":
        recipe_model.load_state_dict(damped(recipe_state))
    recipe_model.train().decode_head2.dropout.p = 0
    images = (found["small_rgb"] / 255).permute(2, 0, 1)
    with torch.no_grad():
        logits = recipe_model(torch.stack([images, images.flip(2)]))
    torch.testing.assert_close(logits, found[f"{recipe}_small_train_logits"], atol=5e-4, rtol=1e-4)
    torch.testing.assert_close(logits.softmax(1), found[f"{recipe}_small_train_softmax"], atol=5e-4, rtol=0)
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(
            getattr(recipe_model.backbone2.bn1, name),
            found[f"{recipe}_small_train_bn1_{name}_after"],
            atol=1e-5,
            rtol=1e-5,
        )


def test_correlation_is_the_official_one(parity: Path) -> None:
    found = tensors(parity / "fixture_ops.npz")
    torch.testing.assert_close(correlation(found["corr_x1"], found["corr_x2"]), found["corr"], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (3, 7), (6, 10), (13, 5), (3, 32), (2, 37)])
def test_correlation_equals_one_displacement_after_the_other(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    first, second = torch.randn(2, 2, 6, *size, dtype=torch.float64).requires_grad_()
    torch.testing.assert_close(correlation(first, second), plain_correlation(first, second))
    torch.autograd.gradcheck(correlation, (first[:1, :2], second[:1, :2]), fast_mode=True)


def test_the_estimator_is_the_official_one(parity: Path) -> None:
    found = tensors(parity / "fixture_ops.npz")
    estimator = FlowEstimator()
    prefix = "decode_head.flownet.flow_estimators."
    estimator.load_state_dict(
        {name: recipe_tensor(prefix + name, tuple(value.shape)) for name, value in estimator.state_dict().items()}
    )
    with torch.no_grad():
        features = estimator(found["est_in"])
        pooled = estimator.flow(pool_segments(features, found["est_mask"])[..., None])[0, :, :, 0].T
        dense = estimator.flow(features)
    torch.testing.assert_close(features[:, 64:], found["est_x5"], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(pooled, found["est_group"], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(dense, found["est_dense"], atol=1e-5, rtol=1e-4)


def test_an_empty_segment_pools_to_finite_values() -> None:
    features = torch.randn(1, 3, 4, 4, requires_grad=True)
    masks = torch.zeros(1, 2, 4, 4)
    masks[:, 0] = 1
    pooled = pool_segments(features, masks)
    pooled.sum().backward()
    torch.testing.assert_close(pooled[..., 0], features.mean((2, 3)))
    assert not pooled[..., 1].any()
    assert features.grad is not None
    assert features.grad.isfinite().all()


def test_the_backbone_loads_into_torchvision() -> None:
    builds: dict[BackboneName, Any] = {"resnet50": resnet50, "resnet18": resnet18}
    for name, build in builds.items():
        missing = build(weights=None).load_state_dict(Backbone(name).state_dict(), strict=False)
        assert (missing.missing_keys, missing.unexpected_keys) == (["fc.weight", "fc.bias"], [])


def test_dilations_and_strides_are_those_of_the_paper() -> None:
    for name in get_args(BackboneName):
        backbone = Backbone(name)
        spatial = [
            {(layer.dilation, layer.padding) for layer in stage.modules() if _is_spatial(layer)}
            for stage in (backbone.layer1, backbone.layer2, backbone.layer3, backbone.layer4)
        ]
        assert spatial == [{((1, 1), (1, 1))}] * 3 + [{((2, 2), (2, 2))}]
        sizes = [tuple(stage.shape[2:]) for stage in backbone.stages(torch.zeros(1, 3, 75, 101))]
        assert sizes == [(19, 26), (10, 13), (10, 13), (10, 13)]


def _is_spatial(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3)


def test_the_small_network_runs_on_odd_sizes() -> None:
    model = AMD(Architecture("resnet18")).eval()
    assert isinstance(model.decode_head2, SegmentHead)
    with torch.inference_mode():
        assert model(torch.rand(1, 3, 33, 57)).shape == (1, 5, 5, 8)


def test_a_narrow_network_has_narrow_stages_and_head() -> None:
    expansions: dict[BackboneName, int] = {"resnet18": 1, "resnet50": 4}
    for name, expansion in expansions.items():
        model = AMD(Architecture(name, width=16, head_width=24))
        stages = model.backbone2.stages(torch.zeros(1, 3, 16, 16))
        assert [stage.shape[1] for stage in stages] == [16 * expansion * scale for scale in (1, 2, 4, 8)]
        assert model.decode_head2.conv_seg.weight.shape == (5, 24, 1, 1)
        assert model(torch.zeros(2, 3, 16, 16)).shape == (2, 5, 2, 2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"width": 0}, "--width is 0"),
        ({"head_width": 0}, "--head-width is 0"),
        *(({"motion_size": size}, "multiples of 64") for size in ((0, 64), (64, 100), (-64, 64))),
    ],
)
def test_networks_that_cannot_be_built_are_refused(words: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Architecture(**words)


def test_segment_flow_is_the_mixture_of_the_vectors() -> None:
    """With hard segments every pixel of a segment moves by its vector; the other frame's masks are used."""
    torch.manual_seed(0)
    halves = torch.zeros(2, 1, 5, 8, 8)
    halves[:, :, 0, :, :4] = halves[:, :, 1, :, 4:] = 1
    images = torch.rand(2, 1, 3, 64, 128)
    with torch.no_grad():
        network = MotionNetwork()
        same, swapped = network(images, halves), network(images, halves[:, :, [1, 0, 2, 3, 4]])
    finest = same.flows[0]  # [2, 2, 64, 128]
    torch.testing.assert_close(finest[0, :, 0, 0], same.vectors[0, 0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(finest[0, :, -1, -1], same.vectors[0, 1], atol=1e-5, rtol=1e-4)
    assert [tuple(flow.shape[2:]) for flow in same.flows] == [(64, 128), (32, 64), (16, 32), (8, 16), (4, 8)]
    assert same.dense == []
    torch.testing.assert_close(swapped.vectors[:, [1, 0]], same.vectors[:, :2])  # Segments have no order.
    torch.testing.assert_close(swapped.flows[0], same.flows[0])


def test_pixel_flow_equals_the_flow_of_one_segment_if_all_pixels_agree() -> None:
    """A network whose flow comes from biases alone has the same flow everywhere, whether pooled or not."""
    torch.manual_seed(0)
    network = MotionNetwork()
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.weight.data[:] = 0  # Padding has no effect either.
    everywhere = torch.zeros(2, 1, 5, 8, 8)
    everywhere[:, :, 0] = 1
    images = torch.rand(2, 1, 3, 64, 128)
    with torch.no_grad():
        pooled, by_pixel = network(images, everywhere).flows, network.pixel_flow(images)
    for one, other in zip(pooled, by_pixel, strict=True):
        torch.testing.assert_close(one, other)
    assert by_pixel[0].abs().min() > 1e-3


def test_standardised_features_have_mean_0_and_deviation_1_in_each_image() -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 8, 5, 7) * torch.tensor([3.0, 0.1]).view(2, 1, 1, 1) + 4
    found = standardised(features)
    torch.testing.assert_close(found.mean((1, 2, 3)), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(found.std((1, 2, 3)), torch.ones(2), atol=1e-3, rtol=0)
    assert bool(standardised(torch.ones(1, 2, 3, 3)).isfinite().all())


def test_a_standardised_network_learns_a_shift() -> None:
    """An image moves 4 pixels to the right: flow of +4 in the first frame, of -4 in the second one."""
    torch.manual_seed(0)
    wide = F.interpolate(torch.rand(1, 3, 12, 13), (64, 68), mode="bicubic").clamp(0, 1)
    images = torch.stack([wide[..., 4:], wide[..., :-4]])  # A pixel at x is at x + 4 in the second frame.
    network = MotionNetwork(standardise=True)
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)
    for _ in range(40):
        loss = view_synthesis_loss(images.flatten(0, 1), network.pixel_flow(images))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    finest = network.pixel_flow(images)[0].detach()
    assert finest[0, 0].median() == pytest.approx(4, abs=0.7)
    assert finest[1, 0].median() == pytest.approx(-4, abs=0.7)
    assert finest[:, 1].median().abs() < 0.7


@pytest.mark.parametrize(("backbone", "width", "wide"), [("resnet50", 32, 11), ("resnet18", 64, 13)])
def test_the_frozen_appearance_network_gives_the_same_logits(backbone: BackboneName, width: int, wide: int) -> None:
    torch.manual_seed(0)
    model = AMD(Architecture(backbone, width=width, head_width=128))
    images = torch.rand(2, 3, 90, 131)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.5, 0.5)
            layer.momentum = 1.0
    with torch.no_grad():
        model.train()(images)  # Running statistics are those of these images.
        before = {name: value.clone() for name, value in model.state_dict().items()}
        frozen = FrozenAppearance(model)
        expected = model.eval()(images)
        found = frozen(images)
        again = frozen(images)
        exact = deepcopy(model).double()(images.double())
    off, plain_off = (float((logits - exact).abs().max() / exact.abs().max()) for logits in (found, expected))
    assert off < 3e-5 + 2 * plain_off  # These statistics enlarge rounding, up to 9e-5 in the plain network.
    assert torch.equal(found, again)
    assert sum(isinstance(layer, WinogradConvolution) for layer in frozen.modules()) == wide
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in frozen.modules())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
