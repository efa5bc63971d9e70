"""The VGG16 trunk that the modulator and the segmentation networks are made of."""

from __future__ import annotations

from collections import OrderedDict

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


def _stage(inputs: int, name: str, dilation: int = 1) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for layer, width in zip(layer_names(name), STAGES[name], strict=True):
        layers[layer] = nn.Conv2d(inputs, width, 3, padding=dilation, dilation=dilation)
        inputs = width
    return nn.Sequential(layers)


class VGGTrunk(nn.Module):
    """The five stages; their convolutions have the official names (``conv3.conv3_1``).

    Args:
        inputs: channels of the network's input.
        dilation5: dilation of the last stage.
    """

    def __init__(self, inputs: int = 3, dilation5: int = 1) -> None:
        super().__init__()
        self.conv1 = _stage(inputs, "conv1")
        self.conv2 = _stage(64, "conv2")
        self.conv3 = _stage(128, "conv3")
        self.conv4 = _stage(256, "conv4")
        self.conv5 = _stage(512, "conv5", dilation5)

    @property
    def stages(self) -> tuple[nn.Sequential, ...]:
        """In order; between them is a pooling."""
        return self.conv1, self.conv2, self.conv3, self.conv4, self.conv5
