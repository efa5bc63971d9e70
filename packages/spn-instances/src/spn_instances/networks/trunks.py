"""Trunks, which turn an image into features of strides 8, 16 and 32.

All take BGR pixels, 0..255, minus a mean; see `spn_instances.images.network_input`. Early layers end at stride 8; fast
fine-tuning keeps them as they are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet18

from spn_instances.networks.layers import ConvNorm, FrozenBatchNorm, SameConvNorm

Features = tuple[Tensor, Tensor, Tensor]
"""Features of strides 8, 16 and 32, [B, C, h, w] each."""


class Trunk(nn.Module, ABC):
    """Base of the trunks.

    Attributes:
        channels: of the features of strides 8, 16 and 32.
    """

    channels: tuple[int, int, int]

    @abstractmethod
    def early(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] -> features of stride 8."""

    @abstractmethod
    def late(self, res3: Tensor) -> Features:
        """Features of stride 8 -> those of strides 8, 16 and 32."""

    @abstractmethod
    def early_layers(self) -> tuple[nn.Module, ...]:
        """The modules of `early`."""

    def forward(self, x: Tensor) -> Features:
        """[B, 3, H, W] -> features of strides 8, 16 and 32."""
        return self.late(self.early(x))


class Bottleneck(nn.Module):
    """A residual block of the MSRA networks: the first 1x1 convolution has the stride."""

    def __init__(self, inputs: int, middle: int, stride: int, *, projects: bool) -> None:
        super().__init__()
        self.branch2a = ConvNorm(inputs, middle, 1, stride=stride)
        self.branch2b = ConvNorm(middle, middle, 3)
        self.branch2c = ConvNorm(middle, 4 * middle, 1)
        self.branch1 = ConvNorm(inputs, 4 * middle, 1, stride=stride) if projects else None

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, 4 middle, ceil(H / stride), ceil(W / stride)]."""
        shortcut = x if self.branch1 is None else self.branch1(x)
        x = F.relu(self.branch2b(F.relu(self.branch2a(x))))
        return F.relu(self.branch2c(x) + shortcut)


class CaffeResNet(Trunk):
    """ResNet in the Caffe (MSRA) form; pooling rounds up and does not pad.

    Args:
        blocks: of the four stages; ResNet-101 has (3, 4, 23, 3).
        width: channels of the first stage's 3x3 convolutions.
    """

    def __init__(self, blocks: tuple[int, int, int, int], width: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(3, width, 7, stride=2)
        self.res2 = _stage(width, width, blocks[0], 1)
        self.res3 = _stage(4 * width, 2 * width, blocks[1], 2)
        self.res4 = _stage(8 * width, 4 * width, blocks[2], 2)
        self.res5 = _stage(16 * width, 8 * width, blocks[3], 2)
        self.channels = (8 * width, 16 * width, 32 * width)

    def early(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] -> res3."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 3, 2, ceil_mode=True)
        res3: Tensor = self.res3(self.res2(x))
        return res3

    def late(self, res3: Tensor) -> Features:
        """res3 -> res3, res4, res5."""
        res4 = self.res4(res3)
        return res3, res4, self.res5(res4)

    def early_layers(self) -> tuple[nn.Module, ...]:
        """conv1, res2, res3."""
        return self.conv1, self.res2, self.res3


def _stage(inputs: int, middle: int, blocks: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        Bottleneck(inputs, middle, stride, projects=True),
        *(Bottleneck(4 * middle, middle, 1, projects=False) for _ in range(blocks - 1)),
    )


class ResNet18(Trunk):
    """torchvision's ResNet-18 with frozen statistics and without its classifier, for small machines."""

    def __init__(self) -> None:
        super().__init__()
        self.body = resnet18(norm_layer=FrozenBatchNorm)
        del self.body.fc
        self.channels = (128, 256, 512)

    def early(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] -> features of layer2."""
        body = self.body
        stride8: Tensor = body.layer2(body.layer1(body.maxpool(F.relu(body.bn1(body.conv1(x))))))
        return stride8

    def late(self, res3: Tensor) -> Features:
        """Features of layer2 -> those of layer2, layer3, layer4."""
        stride16 = self.body.layer3(res3)
        return res3, stride16, self.body.layer4(stride16)

    def early_layers(self) -> tuple[nn.Module, ...]:
        """The layers up to layer2."""
        return self.body.conv1, self.body.bn1, self.body.layer1, self.body.layer2


_WIDTHS = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024)
_STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2)
_KERAS_EPS = 1e-3


class SeparableBlock(nn.Module):
    """A depthwise and a pointwise convolution, each with batch norm and ReLU6."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.depthwise = SameConvNorm(inputs, inputs, 3, stride=stride, groups=inputs, eps=_KERAS_EPS)
        self.pointwise = SameConvNorm(inputs, outputs, 1, eps=_KERAS_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, ceil(H / stride), ceil(W / stride)]."""
        return F.relu6(self.pointwise(F.relu6(self.depthwise(x))))


class MobileNet(Trunk):
    """MobileNet-v1 up to its twelfth block, for small machines."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConvNorm(3, 32, 3, stride=2, eps=_KERAS_EPS)
        self.blocks = nn.ModuleList(
            SeparableBlock(inputs, width, stride)
            for inputs, width, stride in zip((32, *_WIDTHS[:-1]), _WIDTHS, _STRIDES, strict=True)
        )
        self.channels = (256, 512, 1024)

    def early(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] -> features of block 5."""
        x = F.relu6(self.stem(x))
        for block in self.blocks[:5]:
            x = block(x)
        return x

    def late(self, res3: Tensor) -> Features:
        """Features of block 5 -> those of blocks 5, 11 and 12."""
        stride16 = res3
        for block in self.blocks[5:-1]:
            stride16 = block(stride16)
        return res3, stride16, self.blocks[-1](stride16)

    def early_layers(self) -> tuple[nn.Module, ...]:
        """The stem and blocks 1 to 5."""
        return self.stem, *self.blocks[:5]
