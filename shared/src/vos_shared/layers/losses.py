"""Losses of several methods."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def balanced_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Class-balanced cross entropy, summed over pixels: each class is weighted by the share of the other.

    Xie and Tu, "Holistically-Nested Edge Detection", ICCV 2015, equation 2.

    Args:
        logits: [B, 1, H, W].
        labels: bool [B, 1, H, W].

    Returns:
        Scalar; the class shares are taken over the whole batch.
    """
    positive = labels.sum().to(logits.dtype)
    negative = labels.numel() - positive
    on_object = F.softplus(-logits)[labels].sum()
    on_background = F.softplus(logits)[~labels].sum()
    return (negative * on_object + positive * on_background) / labels.numel()
