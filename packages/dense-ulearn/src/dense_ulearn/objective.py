"""The losses of a batch, on Lightning Fabric: one process, or several that share their anchors."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Generator, Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from dense_ulearn.augmentation import Views
from dense_ulearn.collectives import Ranks
from dense_ulearn.losses import Losses, Offsets, check_cells, draw_offsets, training_losses
from dense_ulearn.networks import DenseNetwork, map_size
from dense_ulearn.pictures import training_picture
from dense_ulearn.presets import Optimisation, TrainingSettings
from vos_shared.errors import BadWeights
from vos_shared.layers.imagenet import normalise_images
from vos_shared.runtime.seeding import seed_everything

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class Keys(NamedTuple):
    """Unit-length keys of a batch, float32 [B, T, 128, h, w] each."""

    main: Tensor
    other: Tensor


def check_settings(settings: TrainingSettings) -> None:
    """Refuse settings that cannot be carried out.

    Raises:
        UserError: naming the setting.
    """
    settings.check()
    cells = map_size(settings.augmentation.crop)
    check_cells(cells, cells, settings.objective)


def parameter_groups(network: nn.Module, settings: Optimisation) -> list[dict[str, Any]]:
    """Two groups: 43 weights with decay, BatchNorm's included, and 23 biases with twice the rate and no decay."""
    named = list(network.named_parameters())
    return [
        {
            "params": [parameter for name, parameter in named if name.endswith("weight")],
            "lr": settings.lr,
            "weight_decay": settings.weight_decay,
        },
        {
            "params": [parameter for name, parameter in named if name.endswith("bias")],
            "lr": 2 * settings.lr,
            "weight_decay": 0.0,
        },
    ]


def make_optimiser(network: nn.Module, settings: Optimisation) -> Optimizer:
    """The optimiser over `parameter_groups`; each group keeps its first rate as `base_lr`."""
    groups = parameter_groups(network, settings)
    for group in groups:
        group["base_lr"] = group["lr"]
    if settings.optimiser == "sgd":
        return SGD(groups, lr=settings.lr, momentum=settings.momentum)
    return Adam(groups, lr=settings.lr, betas=(settings.beta1, 0.999))


def keys_of_views(
    forward: Callable[[Tensor], Tensor], forward_plain: Callable[[Tensor], Tensor], main: Tensor, other: Tensor
) -> Keys:
    """Keys of both views with the published split of gradient and batch statistics.

    One pass with gradient takes the T frames of the main view and frame 0 of the other view of every clip, so these
    share BatchNorm's statistics. A second pass without gradient takes the rest.

    Args:
        forward: images [N, 3, H, W] to keys [N, C, h, w], with gradient.
        forward_plain: the same for the gradient-free pass.
        main: normalised frames of the main view, [B, T, 3, H, W].
        other: those of the regularising view.
    """
    clips, frames = main.shape[:2]
    with_gradient = forward(torch.cat([main, other[:, :1]], 1).flatten(0, 1)).unflatten(0, (clips, frames + 1))
    with torch.no_grad():
        rest = forward_plain(other[:, 1:].flatten(0, 1)).unflatten(0, (clips, frames - 1))
    return Keys(with_gradient[:, :frames], torch.cat([with_gradient[:, frames:], rest], 1))


class Objective:
    """The network and the losses of a run.

    Args:
        settings: what to compute.
        fabric: launched.
        weights: state dict to start from; None: random values from the settings' seed.

    Attributes:
        network: without Fabric's wrapper, for validation and snapshots.
        optimiser: over `parameter_groups`.
    """

    def __init__(self, settings: TrainingSettings, fabric: Fabric, weights: dict[str, Tensor] | None = None) -> None:
        check_settings(settings)
        seed_everything(settings.seed)
        self.settings, self.fabric = settings, fabric
        self.ranks = Ranks(fabric.global_rank, fabric.world_size)
        network = DenseNetwork().to(memory_format=torch.channels_last)
        if weights is not None:
            load_weights(network, weights)
        if settings.sync_bn:
            nn.SyncBatchNorm.convert_sync_batchnorm(network)  # In place, except for the outermost module.
        self.network = network
        self._wrapped, self.optimiser = fabric.setup(network, make_optimiser(network, settings.optimisation))

    def set_epoch(self, epoch: int) -> None:
        """Set the learning rates of an epoch."""
        factor = self.settings.optimisation.rate_factor(epoch, self.settings.epochs)
        for group in self.optimiser.param_groups:
            group["lr"] = group["base_lr"] * factor

    def __call__(self, views: Views[Tensor], step: int) -> Losses:
        """The losses of a batch in training mode, with gradient.

        Args:
            views: uint8 [B, T, 3, S, S] twice and float32 [B, 2, 3].
            step: seeds the positions of the anchors.
        """
        self.network.train()
        return self.losses(views, self.draw_offsets(len(views.main), step))

    def draw_offsets(self, clips: int, step: int) -> Offsets:
        """Offsets of this rank's clips; every rank draws those of all, so that they form one random stream."""
        cells = map_size(self.settings.augmentation.crop)
        seed = np.random.default_rng([self.settings.seed, 5, step]).integers(2**63)
        mine = slice(self.ranks.rank * clips, (self.ranks.rank + 1) * clips)
        generator = Generator().manual_seed(int(seed))
        drawn = draw_offsets(clips * self.ranks.world, cells, cells, self.settings.objective, generator)
        return Offsets(*(offset[mine] for offset in drawn))

    def losses(self, views: Views[Tensor], offsets: Offsets, *, alone: bool = False) -> Losses:
        """The losses in the network's present mode, with gradient if the caller enables it.

        Args:
            views: uint8 [B, T, 3, S, S] twice and float32 [B, 2, 3].
            offsets: of the grids.
            alone: use this process only, without the others; for validation.
        """
        return self._losses_of(self.keys(views, alone=alone), views, offsets, Ranks() if alone else self.ranks)

    def _losses_of(self, keys: Keys, views: Views[Tensor], offsets: Offsets, ranks: Ranks) -> Losses:
        theta = views.theta.to(self.fabric.device)[:, None].expand(-1, keys.main.shape[1], -1, -1)
        identity = torch.eye(2, 3, device=self.fabric.device).expand_as(theta)
        return training_losses(*keys, theta, identity, offsets, self.settings.objective, ranks)

    def keys(self, views: Views[Tensor], *, alone: bool = False) -> Keys:
        """Keys of both views, float32 [B, T, 128, h, w] each."""
        main, other = (self._images(view) for view in (views.main, views.other))
        # The second pass bypasses Fabric's wrapper: DDP would overwrite BatchNorm's buffers between the two passes.
        forward = self._forward_plain if alone else self._forward
        keys = keys_of_views(forward, self._forward_plain, main, other)
        return Keys(*(key.float() for key in keys))

    def _forward(self, images: Tensor) -> Tensor:
        keys: Tensor = self._wrapped(images.contiguous(memory_format=torch.channels_last)).key
        return keys

    def _forward_plain(self, images: Tensor) -> Tensor:
        training = self.network.training
        self.network.train(training and not self.settings.block_bn)
        with self.fabric.autocast():
            keys: Tensor = self.network(images.contiguous(memory_format=torch.channels_last)).key
        self.network.train(training)
        return keys

    def _images(self, view: Tensor) -> Tensor:
        return normalise_images(view.to(self.fabric.device, non_blocking=True).float() / 255)

    @torch.no_grad()
    def pictures(self, views: Views[Tensor], clips: int = 2) -> npt.NDArray[np.uint8]:
        """Draw the first clips of a batch, uint8 [H, W, 3], see `training_picture`; changes no state."""
        views = Views(*(part[:clips] for part in views))
        training = self.network.training
        self.network.eval()
        cells = map_size(self.settings.augmentation.crop)
        generator = Generator().manual_seed(self.settings.seed)
        offsets = draw_offsets(len(views.main), cells, cells, self.settings.objective, generator)
        keys = self.keys(views, alone=True)
        losses = self._losses_of(keys, views, offsets, Ranks())
        self.network.train(training)
        return training_picture(views, keys.main, losses, self.settings.objective)


def load_weights(network: nn.Module, weights: dict[str, Tensor]) -> None:
    """Load a state dict that fits exactly.

    Raises:
        BadWeights: it belongs to another network.
    """
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise BadWeights(
            "training: the weights belong to another network (they lack or add entries, or have other shapes); "
            "give a snapshot of dense-ulearn"
        ) from error
