"""The contract between methods and the tools that run them.

A method package registers a `Method` under the entry-point group ``vos.methods``. Importing this module or a
`Method` does not import torch, so that discovery and ``--help`` are instant.
"""

from __future__ import annotations

import enum
import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from vos_shared.errors import UserError

if TYPE_CHECKING:
    from vos_shared.video import Video

Frame: TypeAlias = npt.NDArray[np.uint8]
"""One RGB frame, uint8 [H, W, 3]."""

ObjectMask: TypeAlias = npt.NDArray[np.uint8]
"""Object ids, uint8 [H, W]: 0 is background, 1..K are objects; 255 is void, in ground truth only."""

SoftMasks: TypeAlias = npt.NDArray[np.float32]
"""Soft masks, float32 [K, H, W] in 0..1; row k is object k + 1."""

ENTRY_POINT_GROUP = "vos.methods"


class Supervision(enum.Enum):
    """How a method learns about the objects."""

    FIRST_FRAME = "first frame"
    """The mask of every object is given in the frame where the object first appears."""
    NONE = "none"
    """Nothing is given: the method finds the foreground by itself and calls it object 1 (2, 3, .. for more)."""


@dataclass(frozen=True)
class Segmentation:
    """The result of a segmenter for a frame.

    Attributes:
        mask: object ids, uint8 [H, W].
        soft_masks: soft masks, float32 [K, H, W] in 0..1; None unless asked for.
    """

    mask: ObjectMask
    soft_masks: SoftMasks | None = None


@dataclass(frozen=True)
class ModelInfo:
    """Information about a segmenter, for reports.

    Attributes:
        parameters: number of parameters of the networks; 0 without a network.
        weights: description of the weights ("official ytvos_e060_res4", "untrained, seed 0", "none needed").
        trained: False if the result involves no training at all.
    """

    parameters: int
    weights: str
    trained: bool


class Segmenter(ABC):
    """Segments videos frame by frame, causally and in bounded memory."""

    @property
    @abstractmethod
    def info(self) -> ModelInfo:
        """Parameters and origin of the weights."""

    @abstractmethod
    def reset(self) -> None:
        """Forget the current video; the next `step` is the first frame of a new one."""

    def prepare(self, video: Video) -> None:  # noqa: B027 - most methods do not need it
        """Process the whole video before the first `step`; call it after `reset`.

        Does nothing by default. A method that needs it raises `UserError` in `step` if it was not called.
        """

    batch: int = 1
    """Frames that `look_ahead` is given at once."""

    def look_ahead(self, frames: Sequence[Frame]) -> None:  # noqa: B027 - only for methods without memory
        """Compute at once what the next steps, on these frames, need; by default nothing.

        For methods that see each frame by itself: a batch fills a GPU. Masks are those of single steps.
        """

    @property
    def decisions(self) -> Mapping[str, Any]:
        """What the segmenter chose by itself for the current video, as JSON values; kept with the video's results."""
        return {}

    @abstractmethod
    def step(self, frame: Frame, prompt: ObjectMask | None = None, *, soft_masks: bool = False) -> Segmentation:
        """Segment the next frame.

        Args:
            frame: uint8 RGB [H, W, 3]; all frames of a video have one size.
            prompt: ids of objects that are new in this frame, uint8 [H, W], and 0 elsewhere. An all-zero prompt equals
                None. Ids that are known already are ignored.
            soft_masks: also return soft masks.

        Raises:
            UserError: the frame or the prompt has the wrong size or type.
        """


@dataclass(frozen=True)
class Method:
    """A method as the tools see it.

    Attributes:
        name: name on command lines and in results, for example ``dense-ulearn``.
        title: short description of the method.
        paper: authors, venue and year.
        supervision: how the method learns about the objects.
        loader: ``module:function`` of ``load(weights, device, precision, **options) -> Segmenter``; imported on use.
        variants: options of each variant by its name; the name of the method is the plain variant.
    """

    name: str
    title: str
    paper: str
    supervision: Supervision
    loader: str
    variants: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def variant_names(self) -> tuple[str, ...]:
        """Names of all variants, the plain one first."""
        return (self.name, *(name for name in self.variants if name != self.name))

    def load(
        self,
        weights: str | Path | None = None,
        device: str = "auto",
        precision: str = "fp32",
        *,
        variant: str | None = None,
        **options: Any,
    ) -> Segmenter:
        """Build the segmenter.

        Args:
            weights: a file, a name in the method's weights table, or None for the method's default.
            device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
            precision: ``fp32``, ``bf16`` or ``fp16``.
            variant: one of `variant_names`; None is the plain one.
            options: options of the method; they override those of the variant.

        Raises:
            UserError: unknown variant or option; weights, device or precision cannot be used.
        """
        if variant is not None and variant not in self.variant_names:
            raise UserError(f"{self.name}: no variant {variant!r}; there is {', '.join(self.variant_names)}")
        chosen = self.variants.get(variant or self.name, {})
        module, _, function = self.loader.partition(":")
        load = getattr(importlib.import_module(module), function)
        return cast(Segmenter, load(weights, device, precision, **{**chosen, **options}))


def discover() -> tuple[dict[str, Method], dict[str, str]]:
    """Find every installed method.

    Returns:
        Methods by name in alphabetical order, and the reasons why other entry points cannot be used, by name.
    """
    methods: dict[str, Method] = {}
    broken: dict[str, str] = {}
    for entry in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda entry: entry.name):
        try:
            method = entry.load()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # Any package may register, and fail in any way, even by `SystemExit`.
            broken[entry.name] = f"{type(error).__name__}: {error}"
            continue
        if isinstance(method, Method):
            methods[method.name] = method
        else:
            broken[entry.name] = f"{entry.value} is a {type(method).__name__}, not a vos_shared.method.Method"
    return dict(sorted(methods.items())), broken


def find_variant(name: str, methods: Iterable[Method]) -> tuple[Method, str]:
    """Find the method that has a variant of this name.

    Raises:
        UserError: no installed method has such a variant.
    """
    available = list(methods)
    for method in available:
        if name in method.variant_names:
            return method, name
    known = ", ".join(variant for method in available for variant in method.variant_names)
    raise UserError(f"no installed method or variant is called {name!r}; installed: {known or 'none'}")
