"""The stages of the pipeline on one frame: networks, spatial propagation, labels (specification, sections 1 and 6)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from spn_instances.craf import DemoFilter, PaperFilter
from spn_instances.images import network_input, soft_to_grey
from spn_instances.networks import RefinementNet, ResNetF
from vos_shared.method import Frame, ObjectMask

Grey = npt.NDArray[np.uint8]
"""Probabilities of objects, 0..255, [K, H, W]; what the stages hand to each other, in files too."""
Soft = npt.NDArray[np.float32]
THRESHOLD = 0.5
"""A pixel is foreground where that is more likely than background."""


def network_size(size: tuple[int, int], shorter_side: int | None) -> tuple[int, int]:
    """Height and width of frames of this size as the foreground and object nets see them."""
    if shorter_side is None:
        return size
    scale = shorter_side / min(size)
    return round(size[0] * scale), round(size[1] * scale)


def resized(frame: Frame, size: tuple[int, int]) -> Frame:
    """A frame at another height and width."""
    if frame.shape[:2] == size:
        return frame
    return np.asarray(Image.fromarray(frame).resize((size[1], size[0]), Image.Resampling.BILINEAR))


def resized_ids(ids: ObjectMask, size: tuple[int, int]) -> ObjectMask:
    """Ids at another height and width; a small object keeps at least its middle pixel."""
    if ids.shape == size:
        return ids
    small = np.asarray(Image.fromarray(ids).resize((size[1], size[0]), Image.Resampling.NEAREST)).copy()
    for object_id in np.setdiff1d(ids, small):
        rows, columns = np.nonzero(ids == object_id)
        middle = len(rows) // 2
        small[rows[middle] * size[0] // ids.shape[0], columns[middle] * size[1] // ids.shape[1]] = object_id
    return small


def foreground_maps(
    networks: Sequence[ResNetF], frame: Frame, device: torch.device, shorter_side: int | None = None
) -> list[Soft]:
    """Probabilities of each network's foreground, [H, W]; networks that share early layers run them once."""
    small = network_size((frame.shape[0], frame.shape[1]), shorter_side)
    image = network_input(resized(frame, small))[None].to(device)
    early: dict[int, Tensor] = {}
    maps: dict[int, Soft] = {}
    for network in networks:
        if id(network) in maps:
            continue
        shared = id(network.trunk.early_layers()[0])
        if shared not in early:
            early[shared] = network.early_features(image)
        scores = network.head(network.trunk.late(early[shared]), small).float()
        maps[id(network)] = _scaled(scores, (frame.shape[0], frame.shape[1])).softmax(1)[0, 1].cpu().numpy()
    return [maps[id(network)] for network in networks]


def refined(
    network: RefinementNet, frame: Frame, maps: Grey, device: torch.device, shorter_side: int | None = None
) -> Grey:
    """Maps of objects after spatial propagation, all in one batch.

    Args:
        network: on the device.
        frame: uint8 RGB [H, W, 3].
        maps: uint8 [K, H, W].
        device: of the network.
        shorter_side: length that the shorter side is scaled to for the network; None is the frame's own.
    """
    size = frame.shape[0], frame.shape[1]
    small = network_size(size, shorter_side)
    soft = _scaled(torch.from_numpy(maps).to(device).float()[:, None] / 255, small)
    coarse: Tensor = torch.cat([1 - soft, soft], 1)
    logits = network(network_input(resized(frame, small))[None].to(device), coarse).float()
    return soft_to_grey(_scaled(logits, size).softmax(1)[:, 1].cpu().numpy())


def _scaled(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps [K, C, H, W] at another height and width."""
    if maps.shape[2:] == size:
        return maps
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)


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
