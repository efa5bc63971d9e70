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
"""Soft maps of objects, uint8 [K, H, W]: probabilities times 255, as the official stages exchange them in files."""
Soft = npt.NDArray[np.float32]
"""Probabilities in 0..1, [H, W]."""
THRESHOLD = 0.5
"""Pixels above this probability are foreground."""


def network_size(size: tuple[int, int], shorter_side: int | None) -> tuple[int, int]:
    """Height and width at which a network sees frames of this size; their own if `shorter_side` is None."""
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
    """Probabilities of each network's foreground; early layers that networks share run once.

    Args:
        networks: of the foreground or of objects, on the device.
        frame: uint8 RGB [H, W, 3].
        device: of the networks.
        shorter_side: length that the shorter side is scaled to for the networks; None is the frame's own.
    """
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
    """Soft maps of objects after spatial propagation, all in one batch.

    Args:
        network: for two classes, on the device.
        frame: uint8 RGB [H, W, 3].
        maps: soft maps, uint8 [K, H, W].
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
    """Labels of a frame: 0 is background, row k of the maps has label k + 1.

    Args:
        maps: soft maps, uint8 [K, H, W].
        previous: labels of the previous frame, uint8 [H, W].
        foreground: where objects may be, bool [H, W]; None is everywhere.
        apply: the connected-region filter; None is the paper's baseline: each pixel belongs to its strongest map, or
            to the background if all maps are below 0.5.

    Returns:
        uint8 [H, W].
    """
    if apply is not None:
        return np.asarray(apply(maps, previous, foreground))
    labels = np.asarray(maps.argmax(0) + 1, np.uint8)
    labels[maps.max(0) < THRESHOLD * 255] = 0
    if foreground is not None:
        labels[~foreground] = 0
    return labels
