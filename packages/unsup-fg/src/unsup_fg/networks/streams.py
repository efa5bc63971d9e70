"""LowRes-Net (the ICCV model) and EvalSeg-Net: three streams that one trunk joins (specification, sections 4 and 8)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unsup_fg.colours import hsv
from unsup_fg.settings import Architecture

GREY = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in the grey image, whose gradients are an input."""


def differences(images: Tensor) -> Tensor:
    """Compute gradients of the grey image, [B, 3, H, W] -> [B, 2, H, W]: down the rows, then along them.

    Central differences, one-sided at the border, as `numpy.gradient`.
    """
    red, green, blue = images.unbind(1)
    grey = GREY[0] * red + GREY[1] * green + GREY[2] * blue
    return torch.stack(torch.gradient(grey, dim=(1, 2)), 1)


def hue(images: Tensor) -> Tensor:
    """Compute hue in 0..1 of RGB in 0..1, [B, 3, H, W] -> [B, 1, H, W]."""
    return hsv(images)[0][:, None]


class Stream(nn.Module):
    """3x3 and 5x5 convolution of one kind of input, then pooling to half the size."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.conv1_1 = nn.Conv2d(inputs, channels, 3, padding=1)
        self.conv1_2 = nn.Conv2d(channels, channels, 5, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, channels, H / 2, W / 2]."""
        return F.max_pool2d(F.relu(self.conv1_2(F.relu(self.conv1_1(x)))), 2)


class Trunk(nn.Module):
    """Joins the streams; 128 x 128 inputs become a vector."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        wide, narrow = architecture.channels(256), architecture.channels(64)
        self.conv2_1 = nn.Conv2d(3 * wide, wide, 3, padding=1)
        self.conv2_2 = nn.Conv2d(wide, wide, 5, padding=2)
        self.conv3_1 = nn.Conv2d(wide, wide, 3, padding=1)
        self.conv3_2 = nn.Conv2d(wide, wide, 5, padding=2)
        self.conv3_3 = nn.Conv2d(wide, narrow, 5, padding=2)
        self.values = 32 * 32 * narrow

    def forward(self, streams: Tensor) -> Tensor:
        """[B, 3 wide, 64, 64] -> [B, 32 * 32 * narrow]; channels come last, as in TensorFlow."""
        x = F.relu(self.conv2_1(streams))
        x = F.max_pool2d(F.relu(self.conv2_2(x)), 2)
        for layer in (self.conv3_1, self.conv3_2, self.conv3_3):
            x = F.relu(layer(x))
        return x.permute(0, 2, 3, 1).flatten(1)


class LowResNet(nn.Module):
    """Computes a map of 32 x 32 from colours, gradients and hue at 128 x 128."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        wide = architecture.channels(256)
        self.data, self.differences, self.hue = Stream(3, wide), Stream(2, wide), Stream(1, wide)
        self.trunk = Trunk(architecture)
        self.fc1 = nn.Linear(self.trunk.values, 32 * 32)
        self.apply(_truncated_normal)
        nn.init.constant_(self.fc1.bias, 0.1)

    def forward(self, images: Tensor) -> Tensor:
        """RGB in 0..1 [B, 3, 128, 128] -> map, 0 or more, [B, 1, 32, 32]."""
        streams = self.data(images), self.differences(differences(images)), self.hue(hue(images))
        return F.relu(self.fc1(self.trunk(torch.cat(streams, 1)))).view(-1, 1, 32, 32)


class EvalSegNet(nn.Module):
    """Scores how well a soft mask fits an image, about 0 to 100."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        wide = architecture.channels(256)
        self.data, self.seg, self.hsv = Stream(3, wide), Stream(1, wide), Stream(3, wide)
        self.trunk = Trunk(architecture)
        self.fc1 = nn.Linear(self.trunk.values, architecture.channels(512))
        self.fc2 = nn.Linear(architecture.channels(512), 1)
        self.apply(glorot_uniform)

    def forward(self, images: Tensor, soft_masks: Tensor) -> Tensor:
        """RGB [B, 3, 128, 128] and soft masks [B, 1, 128, 128], both in 0..1 -> scores [B]."""
        streams = self.data(images), self.seg(soft_masks), self.hsv(torch.stack(hsv(images), 1))
        scores: Tensor = self.fc2(F.relu(self.fc1(self.trunk(torch.cat(streams, 1)))))
        return scores[:, 0]


def _truncated_normal(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.05, a=-0.1, b=0.1)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def glorot_uniform(module: nn.Module) -> None:
    """Initial values of TensorFlow's layers."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
