"""EfficientNet-Lite0 as a trunk (Tan and Le, ICML 2019; the Lite form has no squeeze-and-excitation, and ReLU6)."""

from __future__ import annotations

from typing import Final

from torch import Tensor, nn
from torch.nn import functional as F

from spn_instances.networks.layers import SameConvNorm
from spn_instances.networks.trunks import Features, Trunk

STAGES: Final = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""Blocks, kernel, stride, expansion and channels of each stage, as in EfficientNet-B0 (Tan and Le, table 1)."""
_STEM: Final = 32
_EPS: Final = 1e-3
_STRIDE8, _STRIDE16 = 5, 11
"""Numbers of blocks after which the features with these strides are taken."""


class InvertedResidual(nn.Module):
    """A mobile inverted bottleneck: 1x1 expansion, depthwise convolution, linear 1x1 projection."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        middle = expansion * inputs
        self.expand = SameConvNorm(inputs, middle, 1, eps=_EPS) if expansion > 1 else None
        self.depthwise = SameConvNorm(middle, middle, kernel, stride=stride, groups=middle, eps=_EPS)
        self.project = SameConvNorm(middle, outputs, 1, eps=_EPS)
        self.adds_input = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, ceil(H / stride), ceil(W / stride)]."""
        expanded = x if self.expand is None else F.relu6(self.expand(x))
        out: Tensor = self.project(F.relu6(self.depthwise(expanded)))
        return x + out if self.adds_input else out


class EfficientNetLite0(Trunk):
    """EfficientNet-Lite0 up to its last block, for small machines."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConvNorm(3, _STEM, 3, stride=2, eps=_EPS)
        self.blocks = nn.ModuleList()
        inputs = _STEM
        for repeats, kernel, stride, expansion, outputs in STAGES:
            for index in range(repeats):
                self.blocks.append(InvertedResidual(inputs, outputs, kernel, 1 if index else stride, expansion))
                inputs = outputs
        self.channels = (40, 112, 320)

    def early(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] -> features of block 5."""
        x = F.relu6(self.stem(x))
        for block in self.blocks[:_STRIDE8]:
            x = block(x)
        return x

    def late(self, res3: Tensor) -> Features:
        """Features of block 5 -> those of blocks 5, 11 and 16."""
        stride16 = res3
        for block in self.blocks[_STRIDE8:_STRIDE16]:
            stride16 = block(stride16)
        stride32 = stride16
        for block in self.blocks[_STRIDE16:]:
            stride32 = block(stride32)
        return res3, stride16, stride32

    def early_layers(self) -> tuple[nn.Module, ...]:
        """The stem and blocks 1 to 5."""
        return self.stem, *self.blocks[:_STRIDE8]
