"""The class-balanced loss of foreground and object nets (specification, section 3.1)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def class_weights(labels: Tensor) -> Tensor:
    """The weight of each pixel in the gradient: the share of the image that is not of its class.

    An image of one class alone has weight 0 everywhere.

    Args:
        labels: bool [B, H, W].

    Returns:
        float32 [B, H, W].
    """
    foreground = labels.float().mean((1, 2), keepdim=True)
    return (1 - foreground).where(labels, foreground)


def balanced_loss(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The weighted loss, whose gradient is Caffe's, and the loss without weights, which Caffe prints.

    Args:
        scores: logits of background and foreground, float [B, 2, H, W].
        labels: bool [B, H, W].

    Returns:
        Two scalars, each summed over pixels and averaged over images.
    """
    entropy = F.cross_entropy(scores, labels.long(), reduction="none")
    weighted = (entropy * class_weights(labels)).sum() / len(labels)
    return weighted, entropy.detach().sum() / len(labels)
