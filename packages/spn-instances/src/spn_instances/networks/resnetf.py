"""ResNetF, the fully convolutional network for the foreground and for objects (paper, figure 2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from spn_instances.networks.efficientnet import EfficientNetLite0
from spn_instances.networks.head import DenseHead, FusionHead
from spn_instances.networks.trunks import CaffeResNet, Features, MobileNet, ResNet18, Trunk
from spn_instances.settings import TrunkName


@dataclass(frozen=True)
class Architecture:
    """Architecture of ResNetF; by default the official one.

    Attributes:
        trunk: ``resnet`` is the official one; ``resnet18``, ``mobilenet`` and ``efficientnet-lite0`` are for small
            machines.
        blocks: of trunk ``resnet``: number of blocks of its four stages.
        width: of trunk ``resnet``: channels of the 3x3 convolutions of its first stage.
        hidden: channels of the fused features (feat08).
        upsamplers: ``bilinear`` as in the published network; ``dense`` if they are weights, see `DenseHead`.
    """

    trunk: TrunkName = "resnet"
    blocks: tuple[int, int, int, int] = (3, 4, 23, 3)
    width: int = 64
    hidden: int = 128
    upsamplers: Literal["bilinear", "dense"] = "bilinear"

    @property
    def offsets(self) -> tuple[int, int, int]:
        """Offsets at which the three upsampled maps are cropped; (1, 1, 4) is central, the official ones are not."""
        return (2, 0, 8) if self.trunk == "resnet" else (1, 1, 4)


class ResNetF(nn.Module):
    """Scores (logits) of background and foreground, for images of any size.

    Args:
        architecture: None is the official one.
    """

    def __init__(self, architecture: Architecture | None = None) -> None:
        super().__init__()
        self.architecture = architecture = architecture or Architecture()
        self.trunk = _trunk(architecture)
        head = FusionHead if architecture.upsamplers == "bilinear" else DenseHead
        self.head = head(self.trunk.channels, architecture.hidden, architecture.offsets)

    def forward(self, images: Tensor) -> Tensor:
        """BGR minus mean, [B, 3, H, W] -> scores [B, 2, H, W]."""
        scores: Tensor = self.head(self.features(images), tuple(images.shape[-2:]))
        return scores

    def features(self, images: Tensor) -> Features:
        """BGR minus mean, [B, 3, H, W] -> features of the trunk."""
        return self.trunk.late(self.early_features(images))

    def early_features(self, images: Tensor) -> Tensor:
        """BGR minus mean, [B, 3, H, W] -> features of stride 8.

        Images of a size at which the original aborts are padded by repeating the last row or column.
        """
        height, width = images.shape[-2:]
        if self.architecture.trunk == "resnet":
            padding = (0, _valid_length(width) - width, 0, _valid_length(height) - height)
            images = F.pad(images, padding, mode="replicate") if any(padding) else images
        return self.trunk.early(images)


def _trunk(architecture: Architecture) -> Trunk:
    if architecture.trunk == "resnet":
        return CaffeResNet(architecture.blocks, architecture.width)
    small: dict[str, Callable[[], Trunk]]
    small = {"resnet18": ResNet18, "mobilenet": MobileNet, "efficientnet-lite0": EfficientNetLite0}
    return small[architecture.trunk]()


def _valid_length(length: int) -> int:
    """The smallest length, not below this one, at which all official crops fit."""
    return next(size for size in range(max(length, 3), length + 64) if _fits(size))


def _fits(length: int) -> bool:
    pooled = -(-((length + 1) // 2 - 3) // 2) + 1
    res3 = (pooled + 1) // 2
    res4 = (res3 + 1) // 2
    res5 = (res4 + 1) // 2
    # A transposed convolution makes 2 n + 2 cells, or 8 n + 8, of n; crops start at 2, 0 and 8.
    return pooled > 0 and 2 * res5 >= res4 and 2 * res4 + 2 >= res3 and 8 * res3 >= length
