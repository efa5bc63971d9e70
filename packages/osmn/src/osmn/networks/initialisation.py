"""Start values of networks without a checkpoint (specification, sections 5 and 6)."""

from __future__ import annotations

from torch import nn

from osmn.networks.lite import LiteVisualModulator
from osmn.networks.model import OSMN
from osmn.networks.modulators import VisualModulator

VGG_STD = 0.001
LITE_STD = 0.09


def initialise(model: OSMN) -> OSMN:
    """Draw all convolutions at random; the last layers of the visual modulator start at gamma = 1 for every object."""
    lite = model.architecture.base_model == "lite"
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            if lite:
                nn.init.trunc_normal_(module.weight, std=LITE_STD, a=-2 * LITE_STD, b=2 * LITE_STD)
            else:
                nn.init.normal_(module.weight, std=VGG_STD)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for head in _last_layers(model):
        nn.init.zeros_(head.weight)
        assert head.bias is not None
        nn.init.ones_(head.bias)
    return model


def _last_layers(model: OSMN) -> list[nn.Conv2d]:
    if isinstance(model.modulator, VisualModulator):
        return [model.modulator.fc8]
    if isinstance(model.modulator, LiteVisualModulator):
        return [head for head in model.modulator.heads if isinstance(head, nn.Conv2d)]
    return []
