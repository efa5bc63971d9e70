"""The trunk of the appearance network: a ResNet of output stride 8 under torchvision's names (specification, 3.1)."""

from __future__ import annotations

from typing import Any, Final

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from amd_objectness.settings import BackboneName

_BLOCKS: Final[dict[BackboneName, tuple[Any, list[int]]]] = {
    "resnet50": (Bottleneck, [3, 4, 6, 3]),
    "resnet18": (BasicBlock, [2, 2, 2, 2]),
}
STEM: Final = 64
"""Channels before the first stage."""
LAST_DILATION: Final = 2
"""Dilation of the 3x3 convolutions of the last stage. The third stage has lost its stride, but is not dilated."""


class Backbone(ResNet):  # type: ignore[misc]  # torchvision is not typed
    """ResNet without pooling and classifier, with strides 1, 2, 1, 1 and dilations 1, 1, 1, 2 of its stages.

    Start values are those of the paper: Kaiming normal, and zero for the scale of the last batch norm of each block.

    Args:
        name: of the architecture.
        width: channels of the first stage before the block's expansion, 64 in the paper; the stem always has 64.

    Attributes:
        channels: of the output; 2048 (ResNet-50) or 512 (ResNet-18) at the paper's width.
    """

    def __init__(self, name: BackboneName = "resnet50", width: int = 64) -> None:
        block, counts = _BLOCKS[name]
        self._width = width
        super().__init__(block, counts, zero_init_residual=True)
        del self.avgpool, self.fc
        self.channels: int = self.inplanes
        for stage in (self.layer3, self.layer4):
            first = stage[0]
            first.stride = 1
            first.downsample[0].stride = (1, 1)
            (first.conv2 if block is Bottleneck else first.conv1).stride = (1, 1)
        for residual in self.layer4:
            for convolution in (residual.conv1, residual.conv2):
                if convolution.kernel_size == (3, 3):
                    convolution.dilation = convolution.padding = (LAST_DILATION, LAST_DILATION)

    def _make_layer(self, block: Any, planes: int, *counts_and_strides: Any, **options: Any) -> nn.Sequential:
        """Build a stage as torchvision does, with another width."""
        stage: nn.Sequential = super()._make_layer(block, planes * self._width // STEM, *counts_and_strides, **options)
        return stage

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images [B, 3, H, W] to features [B, C, h, w], h = ceil(H / 8)."""
        return self.stages(images)[-1]

    def stages(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The outputs of all four stages, at strides 4, 8, 8 and 8."""
        stem = self.maxpool(self.relu(self.bn1(self.conv1(images))))  # [B, 64, H/4, W/4]
        first = self.layer1(stem)
        second = self.layer2(first)
        third = self.layer3(second)
        return first, second, third, self.layer4(third)
