"""The refinement network: VGG-16 computes gates from the image, which propagate a coarse mask (paper, section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spn_instances.spn import SpatialPropagation
from vos_shared.layers.upsampling import bilinear_kernel

STRIDE = 32
"""Sides of the input are padded to multiples of it."""
_GATES = 12
"""Gates of a channel: three for each of four directions."""
_ROUNDS = 2


@dataclass(frozen=True)
class Refinement:
    """Architecture of the refinement network; by default caffe-spn's ``voc_rnn_vgg_v3`` for masks of one object.

    Attributes:
        classes: number of classes, background included; 21 in the public network for PASCAL VOC.
        width: channels of the first convolutions; VGG-16 has 64.
        channels: number of propagated channels.
    """

    classes: int = 2
    width: int = 64
    channels: int = 32


class Guidance(nn.Module):
    """VGG-16 and a decoder with skip connections, which are sums; it computes the gates from the image."""

    kernel: Tensor

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        one, two, three, four = width, 2 * width, 4 * width, 8 * width
        self.conv1_1, self.conv1_2 = _conv(3, one), _conv(one, one)
        self.conv2_1, self.conv2_2 = _conv(one, two), _conv(two, two)
        self.conv3_1, self.conv3_2, self.conv3_3 = _conv(two, three), _conv(three, three), _conv(three, three)
        self.conv4_1, self.conv4_2, self.conv4_3 = _conv(three, four), _conv(four, four), _conv(four, four)
        self.conv5_1, self.conv5_2, self.conv5_3 = _conv(four, four), _conv(four, four), _conv(four, four)
        self.edge_conv5 = nn.Conv2d(four, four, 1)
        self.edge_conv6, self.edge_conv7 = _conv(four, four), _conv(four, four)
        self.edge_conv8 = _conv(four, three)
        self.guide_conv2 = _conv(three, _GATES * channels)
        self.register_buffer("kernel", bilinear_kernel(4), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """BGR minus mean [B, 3, H, W] -> gates [B, 12 channels, H / 2, W / 2]; H and W are multiples of 32."""
        x = _relu(image, self.conv1_1, self.conv1_2)
        x = _relu(_pool(x), self.conv2_1, self.conv2_2)
        conv3 = _relu(_pool(x), self.conv3_1, self.conv3_2, self.conv3_3)
        conv4 = _relu(_pool(conv3), self.conv4_1, self.conv4_2, self.conv4_3)
        conv5 = _relu(_pool(conv4), self.conv5_1, self.conv5_2, self.conv5_3)
        x = self.edge_conv5(_pool(conv5))
        x = F.relu(self.edge_conv6(double(x, self.kernel))) + conv5
        x = F.relu(self.edge_conv7(double(x, self.kernel))) + conv4
        x = F.elu(self.edge_conv8(double(x, self.kernel))) + conv3
        gates: Tensor = self.guide_conv2(double(x, self.kernel))
        return gates


class RefinementNet(nn.Module):
    """Sharpens coarse masks: it encodes them, propagates them twice along the gates of the guidance, and decodes them.

    Args:
        architecture: None is the default one.
    """

    kernel: Tensor

    def __init__(self, architecture: Refinement | None = None) -> None:
        super().__init__()
        self.architecture = architecture = architecture or Refinement()
        channels, classes = architecture.channels, architecture.classes
        self.guidance = Guidance(architecture.width, channels)
        self.rnn_conv1 = nn.Conv2d(classes, channels, 4, 2, 1)
        self.propagation = SpatialPropagation("always", _ROUNDS)
        self.rnn_conv2 = _conv(channels, 2 * channels)
        self.deconv0 = _conv(2 * channels, classes)  # A convolution in spite of its official name.
        self.register_buffer("kernel", bilinear_kernel(4), persistent=False)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.xavier_uniform_(layer.weight)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def forward(self, image: Tensor, coarse: Tensor) -> Tensor:
        """Logits of refined masks.

        Args:
            image: BGR minus mean, [B, 3, H, W], or [1, 3, H, W] for all masks.
            coarse: probabilities of the classes, background first, [B, classes, H, W].

        Returns:
            [B, classes, H, W].
        """
        height, width = image.shape[-2:]
        padding = (0, -width % STRIDE, 0, -height % STRIDE)
        gates = self.guidance(F.pad(image, padding))
        x = self.propagation(self.rnn_conv1(_pad_with_background(coarse, padding)), gates)
        x = F.relu(self.rnn_conv2(double(x, self.kernel)))
        logits: Tensor = self.deconv0(x)[..., :height, :width]
        return logits


def _pad_with_background(coarse: Tensor, padding: tuple[int, int, int, int]) -> Tensor:
    background, others = coarse[:, :1], coarse[:, 1:]
    return torch.cat([F.pad(background, padding, value=1.0), F.pad(others, padding)], 1)


def double(x: Tensor, kernel: Tensor) -> Tensor:
    """Bilinear upsampling by a factor of 2, with zeros beyond the border."""
    channels = x.shape[1]
    return F.conv_transpose2d(x, kernel.to(x.dtype).expand(channels, 1, -1, -1), stride=2, padding=1, groups=channels)


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def _relu(x: Tensor, *layers: nn.Module) -> Tensor:
    for layer in layers:
        x = F.relu(layer(x))
    return x


def _pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, 2, ceil_mode=True)
