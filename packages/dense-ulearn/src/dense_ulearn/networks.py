"""The feature network: a ResNet-18 of stride 8 with a two-layer embedding head.

Parameter names are those of the published snapshots: ``fast_net.backbone.*`` is the trunk under torchvision's names,
``fast_net.emb_q.*`` the head.
"""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet

from dense_ulearn.settings import Layer

STRIDE = 8


def map_size(pixels: int) -> int:
    """Height or width of the feature map of an image with this height or width."""
    return -(-pixels // STRIDE)


class Features(NamedTuple):
    """The three feature maps of a batch of images, each float [B, C, h, w] with h = ceil(H / 8)."""

    res3: Tensor
    """Output of the third stage, after its ReLU: C = 256."""
    res4: Tensor
    """Output of the fourth stage, after its ReLU: C = 512. Labels are propagated with it."""
    key: Tensor
    """Output of the head: C = 128. The training losses compare it."""


class Trunk(ResNet):  # type: ignore[misc]  # torchvision is not typed
    """ResNet-18 without pooling and classifier; the last two stages stay at stride 8, without dilation."""

    def __init__(self) -> None:
        super().__init__(BasicBlock, [2, 2, 2, 2])
        del self.avgpool, self.fc
        for stage in (self.layer3, self.layer4):
            first = stage[0]
            first.stride = 1
            first.conv1.stride = first.downsample[0].stride = (1, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images [B, 3, H, W] to res3 [B, 256, h, w] and res4 [B, 512, h, w]."""
        res3 = self.res3(images)
        return res3, self.layer4(res3)

    def res3(self, images: Tensor) -> Tensor:
        """Everything before the last stage: images [B, 3, H, W] to [B, 256, h, w]."""
        stem = self.maxpool(self.relu(self.bn1(self.conv1(images))))  # [B, 64, H/4, W/4]
        features: Tensor = self.layer3(self.layer2(self.layer1(stem)))
        return features


class EmbeddingHead(nn.Module):
    """Pointwise two-layer head from res4 to the key embedding: [B, 512, h, w] -> [B, 128, h, w]."""

    def __init__(self, in_channels: int = 512, out_channels: int = 128) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, in_channels, 1)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, res4: Tensor) -> Tensor:
        """Embed each cell on its own."""
        embedded: Tensor = self.conv2(self.relu(self.bn1(self.conv1(res4))))
        return embedded


class FastNet(nn.Module):
    """Trunk and head; the inner module of the published snapshots."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Trunk()
        self.emb_q = EmbeddingHead()

    def forward(self, images: Tensor) -> Features:
        """Images [B, 3, H, W] to the raw, un-normalised features."""
        res3, res4 = self.backbone(images)
        return Features(res3, res4, self.emb_q(res4))


class DenseNetwork(nn.Module):
    """The whole network under the names of the published snapshots.

    Input images are normalised, see `vos_shared.layers.imagenet`. The method trains from scratch: the trunk starts
    as torchvision's ResNet (Kaiming normal), the head as PyTorch's convolutions.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fast_net = FastNet()

    def forward(self, images: Tensor, norm: bool = True) -> Features:
        """All three feature maps.

        Args:
            images: normalised images, float [B, 3, H, W].
            norm: scale the vector of every cell to unit length.
        """
        features: Features = self.fast_net(images)
        return Features(*map(unit_length, features)) if norm else features

    def layer(self, images: Tensor, name: Layer, norm: bool = True) -> Tensor:
        """One feature map, without the layers that it does not need: [B, 3, H, W] -> [B, C, h, w]."""
        net = self.fast_net
        features: Tensor = net.backbone.res3(images)
        if name != "res3":
            features = net.backbone.layer4(features)
        if name == "key":
            features = net.emb_q(features)
        return unit_length(features) if norm else features


def unit_length(features: Tensor) -> Tensor:
    """Scale the vector of every cell of [B, C, h, w] to length 1."""
    return F.normalize(features, dim=1)  # eps 1e-12
