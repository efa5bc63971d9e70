"""Start values: VGG16 and MobileNet from ImageNet compute the same features as their donors."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import conv2d

from osmn.guides import MEAN_BGR, Normalisation
from osmn.imagenet import (
    VGG_CONVOLUTIONS,
    from_keras_mobilenet,
    from_slim_vgg16,
    from_torchvision_vgg16,
)
from osmn.networks import OSMN, VARIANTS, Architecture
from osmn.networks.lite import LiteNet
from osmn.official import names_of
from vos_shared.layers.imagenet import IMAGE_MEAN, IMAGE_STD


def test_keras_start_sees_the_same_pixels(tmp_path: Path) -> None:
    # A first layer that saw rgb / 127.5 - 1 gives the same features from (bgr - mean) * scale.
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 3, 3, 32)).astype(np.float32)
    norm = {
        leaf: rng.uniform(0.5, 1.5, 32).astype(np.float32)
        for leaf in ("gamma", "beta", "moving_mean", "moving_variance")
    }
    arrays = {"conv1|kernel": kernel, **{f"conv1_bn|{leaf}": value for leaf, value in norm.items()}}
    model = OSMN(Architecture("lite", head_width=8)).eval()
    model.load_state_dict(from_keras_mobilenet(arrays, model, 0.00787), strict=False)
    frame = rng.integers(0, 255, (9, 9, 3), dtype=np.uint8)
    assert isinstance(model.seg, LiteNet)
    with torch.no_grad():
        ours = model.seg.get_submodule("stem")(torch.from_numpy(Normalisation(0.00787)(frame))[None])
    theirs = frame.astype(np.float32)[3:6, 3:6] / 127.5 - 1  # the window of an inner cell
    wanted = np.einsum("hwc,hwco->o", theirs, kernel)
    wanted = norm["gamma"] * (wanted - norm["moving_mean"]) / np.sqrt(norm["moving_variance"] + 1e-3) + norm["beta"]
    np.testing.assert_allclose(ours[0, :, 2, 2].numpy(), wanted, rtol=1e-4, atol=1e-4)


def test_slims_vgg_starts_both_trunks() -> None:
    with torch.device("meta"):
        model = OSMN(VARIANTS["osvos"])
    convolutions = re.compile(r"seg\.conv(\d)\.conv\1_\d\.")  # Without the side outputs.
    shapes = {name: model.state_dict()[key].shape for key, name in names_of(model).items() if convolutions.match(key)}
    arrays = {
        f"vgg_16/{name.split('/', 2)[2]}": np.full([*shape[2:], shape[1], shape[0]] if len(shape) == 4 else shape, 3.0)
        for name, shape in shapes.items()
    }
    loaded = from_slim_vgg16(arrays, model)
    assert len(loaded) == 2 * 26
    for trunk in ("seg", "modulator"):
        for layer in ("conv1.conv1_1.weight", "conv3.conv3_3.bias", "conv5.conv5_3.weight"):
            assert (loaded[f"{trunk}.{layer}"] == 3).all()


def test_torchvisions_vgg_starts_both_trunks_and_sees_the_same_pixels() -> None:
    generator = torch.Generator().manual_seed(0)
    donor = {"classifier.0.bias": torch.ones(4096), "classifier.3.bias": torch.ones(4096)}
    donor["classifier.0.weight"] = torch.zeros(1, 1).expand(4096, 25088)
    donor["classifier.3.weight"] = torch.zeros(1, 1).expand(4096, 4096)
    with torch.device("meta"):
        model = OSMN(VARIANTS["osvos"])
    convolutions = [key for key in model.seg.state_dict() if re.fullmatch(r"conv(\d)\.conv\1_\d\.weight", key)]
    for place, key in zip(VGG_CONVOLUTIONS, convolutions, strict=True):
        shape = model.seg.state_dict()[key].shape
        donor[f"features.{place}.weight"] = torch.randn(shape, generator=generator)
        donor[f"features.{place}.bias"] = torch.randn(shape[0], generator=generator)
    loaded = from_torchvision_vgg16(donor, model, scale_value=0.5)
    assert len(loaded) == 2 * 26 + 4
    pixels = 255 * torch.rand(1, 3, 12, 12, generator=generator)  # RGB.
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (IMAGE_MEAN, IMAGE_STD))
    expected = conv2d((pixels / 255 - mean) / std, donor["features.0.weight"], donor["features.0.bias"])
    ours = 0.5 * (pixels.flip(1) - torch.tensor(MEAN_BGR).view(1, 3, 1, 1))
    for trunk in ("seg", "modulator"):
        found = conv2d(ours, loaded[f"{trunk}.conv1.conv1_1.weight"], loaded[f"{trunk}.conv1.conv1_1.bias"])
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        assert torch.equal(loaded[f"{trunk}.conv5.conv5_3.weight"], donor["features.28.weight"])
