"""The motion network: a lite PWC-Net whose flow is one vector a segment (specification, 4)."""

from __future__ import annotations

from itertools import pairwise
from typing import Final, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from amd_objectness.networks.correlation import DISPLACEMENTS, correlation
from amd_objectness.warping import resize, warp

CHANNELS: Final = (3, 16, 32, 64, 96, 128, 192)
"""Channels of the images and of the six stages of the pyramid."""
SLOPE: Final = 0.1
"""Negative slope of all leaky ReLUs."""
SMALLEST_SEGMENT: Final = 1e-12
"""Least sum of a soft mask that features are divided by, so that empty segments pool to zero rather than NaN."""


class SegmentFlow(NamedTuple):
    """Flow of the pairs of a batch.

    Attributes:
        flows: segment flow in pixels of the level, finest first: float [N, 2, H, W] at 1, 1/2, 1/4, 1/8 and 1/16 of the
            motion network's input. Channel 0 is x.
        vectors: flow of each segment, in pixels at full size, float [N, segments, 2].
        dense: flow of each pixel by itself, in the sizes of `flows`; empty unless it was asked for.
    """

    flows: list[Tensor]
    vectors: Tensor
    dense: list[Tensor]


def convolution(in_channels: int, out_channels: int, size: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution with bias, padded by half its kernel, and leaky ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, size, stride, padding=size // 2), nn.LeakyReLU(SLOPE, inplace=True)
    )


class FeaturePyramid(nn.Module):
    """Images [N, 3, H, W] to features at strides 64, 32, 16, 8 and 4, coarse to fine."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            *(
                nn.Sequential(convolution(before, after, stride=2), convolution(after, after))
                for before, after in pairwise(CHANNELS)
            )
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features for each level of the decoder, coarsest first: float [N, C, h, w] each."""
        features = []
        for stage in self.convs:
            images = stage(images)
            features.append(images)
        return features[:0:-1]


class FlowEstimator(nn.Module):
    """Densely connected convolutions, and the head g that turns features into a flow; the same for all levels."""

    def __init__(self, in_channels: int = DISPLACEMENTS + 32 + 2) -> None:
        super().__init__()
        self.conv1 = convolution(in_channels, 128)
        self.conv2 = convolution(128, 128)
        self.conv3 = convolution(128 + 128, 96)
        self.conv4 = convolution(128 + 96, 64)
        self.conv5 = convolution(96 + 64, 32)
        self.predict_flow1 = convolution(64 + 32, 64, size=1)
        self.predict_flow2 = nn.Sequential(nn.Conv2d(64, 2, 1))

    @property
    def last(self) -> nn.Conv2d:
        """The convolution that gives the flow."""
        return cast(nn.Conv2d, self.predict_flow2[0])

    def forward(self, features: Tensor) -> Tensor:
        """Correlation, features and flow, [N, 115, h, w], to the map V, [N, 96, h, w]."""
        first = self.conv1(features)
        second = self.conv2(first)
        third = self.conv3(torch.cat([first, second], 1))
        fourth = self.conv4(torch.cat([second, third], 1))
        fifth = self.conv5(torch.cat([third, fourth], 1))
        return torch.cat([fourth, fifth], 1)

    def flow(self, features: Tensor) -> Tensor:
        """The head g: V [N, 96, h, w] to residual flow [N, 2, h, w]."""
        flow: Tensor = self.predict_flow2(self.predict_flow1(features))
        return flow


def pool_segments(features: Tensor, masks: Tensor) -> Tensor:
    """Mean of the features in each soft segment: [N, C, h, w] and [N, c, h, w] to float32 [N, C, c]."""
    with torch.autocast(features.device.type, enabled=False):
        sums = features.float().flatten(2) @ masks.float().flatten(2).transpose(1, 2)
        return sums / masks.float().sum((2, 3)).clamp_min(SMALLEST_SEGMENT)[:, None]


def compose(masks: Tensor, vectors: Tensor) -> Tensor:
    """Segment flow F(p) = sum of vectors weighted by masks: [N, c, h, w] and [N, c, 2] to [N, 2, h, w]."""
    with torch.autocast(masks.device.type, enabled=False):  # Flow is in pixels: half precision is too coarse.
        return torch.einsum("ncij,ncd->ndij", masks, vectors)


def standardised(features: Tensor) -> Tensor:
    """Features [N, C, h, w] as float32 of mean 0 and standard deviation 1 in each image."""
    values = features.float()
    deviations = values.std((1, 2, 3), keepdim=True).clamp_min(1e-6)
    return (values - values.mean((1, 2, 3), keepdim=True)) / deviations


class MotionNetwork(nn.Module):
    """Pairs of images and segments to segment flow.

    Args:
        standardise: see `Architecture.standardise`.
    """

    def __init__(self, *, standardise: bool = False) -> None:
        super().__init__()
        self.standardise = standardise
        self.feature_pyramid_extractor = FeaturePyramid()
        self.flow_estimators = FlowEstimator()
        self.conv_1x1 = nn.ModuleList(convolution(channels, 32, size=1) for channels in CHANNELS[:1:-1])
        if standardise:
            self._start_with_contrast()

    def _start_with_contrast(self) -> None:
        """Set start values with which features keep their scale from stage to stage, and depend on contrast alone.

        With PyTorch's own start values, as released, features shrink threefold in each convolution, and the
        correlation of untrained features is nearly constant.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=SLOPE)
                nn.init.zeros_(cast(Tensor, module.bias))
        for module in self.feature_pyramid_extractor.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.data -= module.weight.data.mean((1, 2, 3), keepdim=True)
        nn.init.normal_(self.flow_estimators.last.weight, std=0.02)  # The first flow is small.

    def forward(self, images: Tensor, masks: Tensor, *, dense: bool = False) -> SegmentFlow:
        """Segment flow from frame 1 to frame 2 and back.

        The flow on the grid of frame 1 is pooled and composed with the segments of frame 2, and the other way round:
        segments of a frame move that frame.

        Args:
            images: RGB in 0..1, float [2, B, 3, H, W]: all first frames, then all second ones. H and W are multiples
                of 64.
            masks: soft segments of the same frames, float [2, B, c, h, w] of any size.
            dense: also compute the dense flow, which no loss uses.

        Returns:
            Flows of N = 2 B pairs: first those on the grid of frame 1, then those on the grid of frame 2.
        """
        pairs = images.shape[1]
        pyramid = self.feature_pyramid_extractor(images.flatten(0, 1))
        other_masks = masks.flip(0).flatten(0, 1).float()
        vectors = other_masks.new_zeros(2 * pairs, masks.shape[2], 2)
        flow = whole = other_masks.new_zeros(2 * pairs, 2, *pyramid[0].shape[2:])
        flows, wholes = [], []
        for level, (own, project) in enumerate(zip(pyramid, self.conv_1x1, strict=True)):
            other, size = own.roll(pairs, 0), (own.shape[2], own.shape[3])
            if level:
                vectors, flow = 2 * vectors, resize(2 * flow, size)
                other = warp(other, flow)
            found = self._estimate(own, other, project(own), flow)
            segments = resize(other_masks, size)
            pooled = pool_segments(found, segments)[..., None]  # [N, 96, c, 1]
            vectors = vectors + self.flow_estimators.flow(pooled)[..., 0].transpose(1, 2).float()
            flow = compose(segments, vectors)
            flows.append(flow)
            if dense:
                whole = (resize(2 * whole, size) if level else whole) + self.flow_estimators.flow(found).float()
                wholes.append(whole)
        return SegmentFlow(_enlarged(flows), 4 * vectors, _enlarged(wholes))

    def pixel_flow(self, images: Tensor) -> list[Tensor]:
        """Flow as if each pixel were a segment of its own: a plain PWC-Net. Arguments and flows as `forward`."""
        pairs = images.shape[1]
        pyramid = self.feature_pyramid_extractor(images.flatten(0, 1))
        flow = torch.zeros_like(pyramid[0][:, :2], dtype=torch.float32)
        flows = []
        for level, (own, project) in enumerate(zip(pyramid, self.conv_1x1, strict=True)):
            other = own.roll(pairs, 0)
            if level:
                flow = resize(2 * flow, (own.shape[2], own.shape[3]))
                other = warp(other, flow)
            found = self._estimate(own, other, project(own), flow)
            flow = flow + self.flow_estimators.flow(found).float()
            flows.append(flow)
        return _enlarged(flows)

    def _estimate(self, own: Tensor, other: Tensor, projected: Tensor, flow: Tensor) -> Tensor:
        """The map V, [N, 96, h, w], of features and the warped features of the other frames."""
        if self.standardise:
            own, other = standardised(own), standardised(other)
        volume = F.leaky_relu(correlation(own, other), SLOPE)
        flow = flow.to(volume.dtype, memory_format=torch.channels_last)  # As the others, else `cat` is slow.
        estimated: Tensor = self.flow_estimators(torch.cat([volume, projected, flow], 1))
        return estimated


def _enlarged(flows: list[Tensor]) -> list[Tensor]:
    """Flow of each level at four times its size, finest first."""
    return [resize(4 * flow, (4 * flow.shape[2], 4 * flow.shape[3])) for flow in reversed(flows)]
