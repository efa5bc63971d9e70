"""The stages of the pipeline on one frame: networks, spatial propagation, labels (specification, sections 1 and 6)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from spn_instances.craf import DemoFilter, PaperFilter
from spn_instances.images import network_input, soft_to_grey
from spn_instances.networks import RefinementNet, ResNetF
from spn_instances.networks.trunks import Features
from vos_shared.method import Frame, ObjectMask

Grey = npt.NDArray[np.uint8]
"""Probabilities of objects, 0..255, [K, H, W]; what the stages hand to each other, in files too."""
Soft = npt.NDArray[np.float32]
THRESHOLD = 0.5
"""Foreground is what is more likely foreground than background."""


def foreground_maps(networks: Sequence[ResNetF], frame: Frame, device: torch.device) -> list[Soft]:
    """Probabilities of each network's foreground, [H, W]; networks that share a trunk run it once."""
    image = network_input(frame)[None].to(device)
    features: dict[int, Features] = {}
    maps = []
    for network in networks:
        if id(network.trunk) not in features:
            features[id(network.trunk)] = network.features(image)
        scores = network.head(features[id(network.trunk)], frame.shape[:2]).float()
        maps.append(scores.softmax(1)[0, 1].cpu().numpy())
    return maps


def refined(network: RefinementNet, frame: Frame, maps: Grey, device: torch.device) -> Grey:
    """Maps of objects after spatial propagation, all in one batch."""
    soft = torch.from_numpy(maps).to(device).float()[:, None] / 255
    coarse: Tensor = torch.cat([1 - soft, soft], 1)
    logits = network(network_input(frame)[None].to(device), coarse).float()
    return soft_to_grey(logits.softmax(1)[:, 1].cpu().numpy())


def labelled(
    maps: Grey, previous: ObjectMask, foreground: npt.NDArray[np.bool_] | None, apply: DemoFilter | PaperFilter | None
) -> ObjectMask:
    """Rows of the maps as labels 1..K, by the connected-region filter, or else by the strongest map.

    Args:
        maps: of the objects.
        previous: labels of the frame before.
        foreground: where objects may be; None is everywhere.
        apply: the filter; None is the paper's baseline: background where all maps are below 0.5.
    """
    if apply is not None:
        return np.asarray(apply(maps, previous, foreground))
    labels = np.asarray(maps.argmax(0) + 1, np.uint8)
    labels[maps.max(0) < THRESHOLD * 255] = 0
    if foreground is not None:
        labels[~foreground] = 0
    return labels
