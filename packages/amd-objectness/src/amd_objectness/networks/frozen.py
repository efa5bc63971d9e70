"""The appearance network for inference on a processor: the same function, with fewer multiplications."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval
from torchvision.models.resnet import Bottleneck

from amd_objectness.networks.model import AMD
from vos_shared.layers.imagenet import normalise_images
from vos_shared.layers.products import pointwise
from vos_shared.layers.winograd import use_winograd

_PAIRS = (("conv", "bn"), ("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"), ("0", "1"))
"""Names of a convolution and of the batch norm behind it, in the head, in residual blocks and in their shortcuts."""


class FrozenAppearance(nn.Module):
    """`AMD.forward` of fixed weights in float32 on a processor, equal but for rounding.

    Batch norms are folded into the convolutions before them, wide 3x3 convolutions are computed by Winograd's
    algorithm, and the last convolution of a block adds to its shortcut in place.

    Args:
        model: is copied.
    """

    def __init__(self, model: AMD) -> None:
        super().__init__()
        self.backbone2, self.decode_head2 = deepcopy(model.backbone2).eval(), deepcopy(model.decode_head2).eval()
        _fold_batch_norms(self)
        use_winograd(self)
        for module in self.modules():
            if type(module) is Bottleneck:
                module.__class__ = _FoldedBottleneck

    def forward(self, images: Tensor) -> Tensor:
        """RGB in 0..1, float32 [B, 3, H, W], to segment logits [B, 5, h, w]."""
        pixels = normalise_images(images).contiguous(memory_format=torch.channels_last)
        logits: Tensor = self.decode_head2(self.backbone2(pixels))
        return logits


def _fold_batch_norms(network: nn.Module) -> None:
    for module in list(network.modules()):
        children = dict(module.named_children())
        for first, second in _PAIRS:
            convolution, norm = children.get(first), children.get(second)
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(module, first, fuse_conv_bn_eval(convolution, norm))
                setattr(module, second, nn.Identity())


class _FoldedBottleneck(Bottleneck):  # type: ignore[misc]  # torchvision is not typed
    """Residual block whose batch norms are folded. It overwrites its input, which nothing else reads in inference."""

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, C', h', w']."""
        shortcut = x if self.downsample is None else _pointwise(self.downsample[0], x)
        inner = self.relu(self.conv2(self.relu(_pointwise(self.conv1, x))))
        sums = shortcut.permute(0, 2, 3, 1).reshape(-1, shortcut.shape[1])
        sums.addmm_(inner.permute(0, 2, 3, 1).reshape(-1, inner.shape[1]), self.conv3.weight.flatten(1).T)
        sums.add_(self.conv3.bias).relu_()
        return sums.view(*shortcut.shape[:1], *shortcut.shape[2:], -1).permute(0, 3, 1, 2)


def _pointwise(convolution: nn.Conv2d, x: Tensor) -> Tensor:
    return pointwise(x, convolution.weight, convolution.bias, convolution.stride[0])
