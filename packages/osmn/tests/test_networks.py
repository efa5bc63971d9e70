"""Networks equal to the numbers of the official TensorFlow code; frame sizes that lite can be trained on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from osmn.networks import OSMN, VARIANTS, Architecture
from osmn.networks.lite import WIDTHS
from osmn.networks.modulators import SpatialModulator
from osmn.official import architecture_of, from_official, names_of, to_official, variant_of
from osmn.presets import LITE_BLOCKS, SampleSettings, TrainingSettings, single_valued
from osmn.training import set_training_mode
from vos_shared.errors import BadWeights
from vos_shared.runtime.device import autocast

pytestmark = pytest.mark.usefixtures("all_cores")

Array = npt.NDArray[Any]


def nchw(value: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(value.transpose(0, 3, 1, 2)))


def nhwc(value: Tensor) -> Array:
    return value.numpy().transpose(0, 2, 3, 1)


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_official_checkpoint_gives_the_official_logits(
    variant: str,
    parity: Path,
    official_arrays: Callable[[str], dict[str, Array]],
    official_model: Callable[[str], OSMN],
    osvos: OSMN,
    device: torch.device,
) -> None:
    inputs, variants = np.load(parity / "fixture.npz"), np.load(parity / "fixture_variants.npz")
    shared = variant == "osvos" and device.type == "cpu"  # All tests share it, so it stays on its device.
    model = osvos if shared else official_model(variant)
    _check_round_trip(variant, official_arrays(variant), model)
    # Channels last, the segmenter's layout, sums in another order, which costs one more bit of float32 here.
    layouts = (
        {torch.contiguous_format: 1, torch.channels_last: 2} if variant == "osvos" else {torch.contiguous_format: 1}
    )
    source, prefix = (inputs, "out/{}") if variant == "osvos" else (variants, variant)
    for (layout, bits), case in product(layouts.items(), {"osvos": "AB", "lite": "A"}.get(variant, "B")):
        model.to(device).to(memory_format=layout)
        image, spatial, guide = (nchw(inputs[f"in/{case}/{name}"]).to(device) for name in ("image", "spatial", "guide"))
        with torch.inference_mode(), autocast(device, torch.float32):
            logits = model(image, spatial, model.visual_modulation(guide)).cpu()
        wanted, probability = (source[f"{prefix.format(case)}/{name}"] for name in ("logits", "prob"))
        largest = max(10.0, float(np.abs(wanted).max()))
        np.testing.assert_allclose(nhwc(logits), wanted, atol=bits * 1e-5 * largest, rtol=0)
        np.testing.assert_allclose(nhwc(logits.sigmoid()), probability, atol=1e-4, rtol=0)


def _check_round_trip(variant: str, arrays: dict[str, Array], model: OSMN) -> None:
    back = to_official(model)
    assert set(back) | {"global_step"} == set(arrays) | {"global_step"}
    for name, value in back.items():
        if name in arrays:
            np.testing.assert_array_equal(value, arrays[name])
    assert variant_of(arrays) == variant


def test_intermediate_values(parity: Path, osvos: OSMN) -> None:
    inputs, model = np.load(parity / "fixture.npz"), osvos
    with torch.inference_mode():
        gamma = model.visual_modulation(nchw(inputs["in/A/guide"]))
        assert gamma is not None
        np.testing.assert_allclose(
            gamma.numpy(), inputs["out/A/gamma"], atol=2e-5 * np.abs(inputs["out/A/gamma"]).max()
        )
        assert isinstance(model.modulator_sp, SpatialModulator)
        betas = model.modulator_sp(nchw(inputs["in/A/spatial"]))
        beta = {stage: nhwc(maps(0, model.architecture.branches[stage])) for stage, maps in betas.items()}
    for stage, step in (("conv3", 16), ("conv4", 8), ("conv5", 1)):
        np.testing.assert_allclose(beta[stage][..., ::step], inputs[f"out/A/beta{stage[-1]}"], atol=1e-5)


def test_objects_of_one_frame_share_unmodulated_layers(parity: Path, osvos: OSMN) -> None:
    inputs, model = np.load(parity / "fixture.npz"), osvos
    image = nchw(inputs["in/C0/image"])
    guides = torch.cat([nchw(inputs[f"in/{case}/guide"]) for case in ("C0", "C1")])
    spatial = torch.cat([nchw(inputs[f"in/{case}/spatial"]) for case in ("C0", "C1")])
    with torch.inference_mode():
        gamma = model.visual_modulation(guides)
        assert gamma is not None
        together = model(image, spatial, gamma)
        alone = torch.cat([model(image, spatial[k : k + 1], gamma[k : k + 1]) for k in range(2)])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-5)


def test_spatial_modulator_folds_its_statistics() -> None:
    torch.manual_seed(0)
    modulator = SpatialModulator({"conv3": 6}, {"conv3": 1})
    for norm in (module for module in modulator.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.running_mean = torch.randn(6)
        norm.running_var = torch.rand(6) + 0.5
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    guide = torch.rand(2, 1, 9, 7)
    branch = modulator.branches["conv3"].eval()
    plain = branch(torch.nn.functional.avg_pool2d(guide, 2, ceil_mode=True)).relu()
    torch.testing.assert_close(modulator.eval()(guide)["conv3"](1, 5), plain[:, 1:5])
    assert (plain >= 0).all()


def test_checkpoint_of_another_variant_is_named(
    official_arrays: Callable[[str], dict[str, Array]],
) -> None:
    with torch.device("meta"):
        model = OSMN(VARIANTS["osvos"])
    with pytest.raises(BadWeights, match="variant deeplab"):
        from_official(official_arrays("deeplab"), model)


def test_early_modulation_is_recognised_without_a_visual_modulator() -> None:
    for early in (False, True):
        architecture = Architecture(mod_early_conv=early, visual=False)
        with torch.device("meta"):
            names = names_of(OSMN(architecture)).values()
        assert architecture_of(dict.fromkeys(names, np.zeros(1))) == architecture


def test_a_fixed_segmentation_network_keeps_its_fusion_layer() -> None:
    """43 of 77 tensors are trained, as published (specification, section 5)."""
    for fixed, trained in ((False, 77), (True, 43)):
        with torch.device("meta"):
            model = OSMN(VARIANTS["osvos"])
        set_training_mode(model, TrainingSettings(fix_seg=fixed))
        assert sum(parameter.requires_grad for parameter in model.parameters()) == trained


@pytest.mark.parametrize("size", [(32, 32), (16, 33)], ids=str)
@pytest.mark.parametrize(("fix_bn", "fix_trunk_bn"), [(True, True), (True, False), (False, True), (False, False)])
def test_what_batch_norm_cannot_take_statistics_from_is_known(
    size: tuple[int, int], fix_bn: bool, fix_trunk_bn: bool, tiny_model: OSMN
) -> None:
    settings = TrainingSettings(batch_size=1, fix_bn=fix_bn, fix_trunk_bn=fix_trunk_bn)
    set_training_mode(tiny_model, settings)
    refused = single_valued(tiny_model.architecture, SampleSettings(size, (1.0,)), settings)
    with pytest.raises(ValueError, match="more than 1 value per channel") if refused else nullcontext():
        tiny_model(torch.zeros(1, 3, *size), torch.zeros(1, 1, *size), torch.ones(1, 1920))


def test_all_blocks_of_lite_may_be_fixed(tiny_model: OSMN) -> None:
    """Batch statistics of frozen blocks stay as well."""
    assert len(WIDTHS) == LITE_BLOCKS
    set_training_mode(tiny_model, TrainingSettings(fixed_seg_blocks=LITE_BLOCKS, fixed_modulator_blocks=LITE_BLOCKS))
    assert tiny_model.modulator is not None
    trunks = {"seg": tiny_model.seg, "modulator": tiny_model.modulator}
    before = {(name, key): value.clone() for name, trunk in trunks.items() for key, value in trunk.state_dict().items()}
    gamma = tiny_model.visual_modulation(torch.rand(2, 3, 224, 224))
    tiny_model(torch.rand(2, 3, 64, 64), torch.rand(2, 1, 64, 64), gamma)
    moved = {key for (name, key), value in before.items() if not torch.equal(trunks[name].state_dict()[key], value)}
    assert not [key for key in moved if key.startswith(("stem", "blocks"))]
