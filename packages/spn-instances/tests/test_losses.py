"""The class-balanced loss is Caffe's: with weights in the gradient, without them in the printed loss."""

from __future__ import annotations

import numpy as np
import torch

from spn_instances.losses import balanced_loss, class_weights
from vos_shared.testing import parity_folder


def test_weights_loss_and_gradient_are_the_official_ones() -> None:
    arrays = np.load(parity_folder("spn-instances") / "fixture_loss.npz")
    labels = torch.from_numpy(arrays["label"] > 0)[None]
    torch.testing.assert_close(class_weights(labels)[0], torch.from_numpy(arrays["weight"]), atol=1e-6, rtol=0)
    scores = torch.from_numpy(arrays["score"]).requires_grad_()
    weighted, printed = balanced_loss(scores, labels)
    np.testing.assert_allclose(weighted.item(), arrays["weighted_loss"], rtol=1e-5)
    np.testing.assert_allclose(printed.item(), arrays["loss_reported"], rtol=1e-5)
    weighted.backward()
    assert scores.grad is not None
    torch.testing.assert_close(scores.grad, torch.from_numpy(arrays["grad_score"]), atol=1e-6, rtol=1e-5)


def test_an_image_of_one_class_gives_no_gradient() -> None:
    for labels in (torch.zeros(1, 4, 5, dtype=torch.bool), torch.ones(1, 4, 5, dtype=torch.bool)):
        assert not class_weights(labels).any()


def test_each_image_is_balanced_by_itself() -> None:
    labels = torch.zeros(2, 2, 2, dtype=torch.bool)
    labels[0, 0, 0] = True
    assert class_weights(labels)[0, 0, 0] == 0.75
    assert not class_weights(labels)[1].any()
