"""The VGG16 trunk that the modulator and the segmentation networks are made of."""

from __future__ import annotations

from torch import nn

STAGES: dict[str, tuple[int, ...]] = {
    "conv1": (64, 64),
    "conv2": (128, 128),
    "conv3": (256, 256, 256),
    "conv4": (512, 512, 512),
    "conv5": (512, 512, 512),
}
"""Output channels of the convolutions of each stage."""


def layer_names(stage: str) -> list[str]:
    """Names of the convolutions of a stage: conv3 -> conv3_1, conv3_2, conv3_3."""
    return [f"{stage}_{number}" for number in range(1, len(STAGES[stage]) + 1)]


def add_vgg_stages(module: nn.Module, inputs: int = 3, dilated: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Add the five stages to a module under their official names (``conv3.conv3_1``); returns the stage names.

    Args:
        module: gets one submodule a stage.
        inputs: channels of the network's input.
        dilated: stages whose convolutions have dilation 2.
    """
    for stage, widths in STAGES.items():
        convolutions = nn.Sequential()
        spacing = 2 if stage in dilated else 1
        for name, width in zip(layer_names(stage), widths, strict=True):
            convolutions.add_module(name, nn.Conv2d(inputs, width, 3, padding=spacing, dilation=spacing))
            inputs = width
        module.add_module(stage, convolutions)
    return tuple(STAGES)
