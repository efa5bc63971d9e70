"""The segment head of the appearance network (specification, 3.2)."""

from __future__ import annotations

from typing import Final

from torch import Tensor, nn

from amd_objectness.settings import SEGMENTS

DILATION: Final = 6
"""Dilation of both convolutions of the head."""


class ConvBlock(nn.Module):
    """Dilated 3x3 convolution, batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=DILATION, dilation=DILATION, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, features: Tensor) -> Tensor:
        """Features [B, C, h, w] to [B, C', h, w]."""
        out: Tensor = self.relu(self.bn(self.conv(features)))
        return out


class SegmentHead(nn.Module):
    """Two dilated convolutions and a classifier: features [B, C, h, w] to segment logits [B, 5, h, w]."""

    def __init__(self, in_channels: int, segments: int = SEGMENTS, width: int = 256) -> None:
        super().__init__()
        self.convs = nn.Sequential(ConvBlock(in_channels, width), ConvBlock(width, width))
        self.dropout = nn.Dropout2d(0.1)
        # Starts as PyTorch's default: the released code never calls its own initialiser.
        self.conv_seg = nn.Conv2d(width, segments, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Features [B, C, h, w] to logits [B, 5, h, w]."""
        logits: Tensor = self.conv_seg(self.dropout(self.convs(features)))
        return logits
