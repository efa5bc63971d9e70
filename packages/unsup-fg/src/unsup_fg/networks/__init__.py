"""The four students and EvalSeg-Net, as modules."""

from __future__ import annotations

from torch import nn

from unsup_fg.networks.streams import EvalSegNet, LowResNet
from unsup_fg.networks.unets import BasicUNet, DenseUNet, DilateUNet
from unsup_fg.settings import Architecture

_NETWORKS: dict[str, type[LowResNet | BasicUNet | DenseUNet | EvalSegNet]] = {
    "lowres": LowResNet,
    "basic-unet": BasicUNet,
    "dense-unet": DenseUNet,
    "dilate-unet": DilateUNet,
    "evalseg": EvalSegNet,
}


def build(architecture: Architecture) -> nn.Module:
    """Build a network with the initial values of the paper's code.

    Students take RGB float32 [B, 3, S, S] in 0..1 and give maps float32 [B, 1, s, s] of 0 or more; 255 is surely
    foreground. EvalSeg-Net takes RGB and a soft mask [B, 1, S, S] in 0..1 and gives scores [B].
    """
    return _NETWORKS[architecture.network](architecture)
