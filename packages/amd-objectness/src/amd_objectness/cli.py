"""The ``amd-objectness`` command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro

from amd_objectness.cli_semantic import FinetuneSemantic
from amd_objectness.cli_train import Train
from amd_objectness.method import AMD_OBJECTNESS
from amd_objectness.settings import AdaptationSettings, InferenceSettings
from amd_objectness.weights import UNTRAINED, WEIGHTS
from vos_shared.cli import Evaluate, run_commands
from vos_shared.errors import UserError
from vos_shared.options import changed_settings
from vos_shared.segment import SegmentArguments, run_segment
from vos_shared.terminal import escaped
from vos_shared.weights_command import ConvertArguments, WeightsCommand

PROGRAM = "amd-objectness"


@dataclass(frozen=True, kw_only=True)
class Segment(SegmentArguments):
    """Segment videos, folders of frames or images without any mask; writes palette PNGs to OUTPUT/<sequence>/."""

    prompt: Annotated[Path | None, tyro.conf.Suppress] = None
    settings: Annotated[InferenceSettings, tyro.conf.arg(name="")] = field(default_factory=InferenceSettings)

    def run(self) -> None:
        """Segment."""
        run_segment(AMD_OBJECTNESS, self, **changed_settings(self.settings))


@dataclass(frozen=True, kw_only=True)
class Adapt(SegmentArguments):
    """Train on a video's own pairs of frames, then segment it, as variant amd-objectness+adapt does.

    The default steps, learning rate and pairs are ours: the released code does not contain this step.
    """

    prompt: Annotated[Path | None, tyro.conf.Suppress] = None
    variant: Annotated[str | None, tyro.conf.Suppress] = "amd-objectness+adapt"
    settings: Annotated[InferenceSettings, tyro.conf.arg(name="")] = field(default_factory=InferenceSettings)
    adaptation: Annotated[AdaptationSettings, tyro.conf.arg(name="")] = field(default_factory=AdaptationSettings)
    together: bool = False
    """Train one network on all sequences of the data set instead of one for each; needs --models."""

    def run(self) -> None:
        """Adapt and segment."""
        settings = changed_settings(self.settings)
        if not self.together:
            run_segment(AMD_OBJECTNESS, self, **settings, **changed_settings(self.adaptation))
            return
        if self.adaptation.models is None:
            raise UserError("amd-objectness: --together keeps the adapted network; give a folder with --models")
        from amd_objectness.adaptation import adapt_together

        sequences = self.load()
        path = adapt_together(self, [sequence.video for sequence in sequences], self.adaptation, self.settings)
        print(escaped(str(path)))
        plain = Segment(**{name: getattr(self, name) for name in SegmentArguments.__dataclass_fields__})
        run_segment(AMD_OBJECTNESS, replace(plain, weights=str(path), variant=None), **settings)


@dataclass(frozen=True, kw_only=True)
class ImportWeights(ConvertArguments):
    """Turn an official checkpoint into a safetensors file, or a file of ours into an official checkpoint."""

    keys: bool = False
    """Print what became of every key of an official checkpoint."""
    backbone: bool = False
    """Write the backbone alone, under torchvision's names, for its resnet50 or resnet18 without fc."""

    def run(self) -> None:
        """Convert."""
        from amd_objectness.checkpoints import (
            OURS,
            load_weights,
            read_official,
            save_backbone,
            save_weights,
            write_official,
        )

        to_ours = self.to_ours(".pth")
        if self.half and self.backbone:
            raise UserError("--half is for whole networks; leave it out with --backbone")
        path = None if self.source == UNTRAINED else WEIGHTS.locate(self.source)
        if path is None or path.suffix == OURS:
            weights = load_weights(self.source)
        else:
            weights, report = read_official(path)
            for line in report.lines() if self.keys else [report.summary()]:
                print(escaped(line))  # The file gives the names of the keys.
        if self.backbone:
            save_backbone(self.output, weights)
        elif to_ours:
            save_weights(self.output, weights, half=self.half)
        else:
            write_official(self.output, weights)
        print(escaped(f"{weights.description}: {self.output}"))


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write the appearance network for torch.export: images [1, 3, H, W] to soft segments [1, 5, H/8, W/8]."""

    output: Annotated[Path, tyro.conf.Positional]
    """The file to write, .pt2; `torch.export.load` reads it without this package."""
    weights: str | None = None
    """A file, or the name of weights; by default those that come with the package."""
    size: tuple[int, int] = (392, 697)
    """Height and width of the images, RGB in 0..1; the default is a 480x854 frame scaled as released."""

    def run(self) -> None:
        """Export."""
        from amd_objectness.export import export_segments

        export_segments(self.output, self.weights, self.size)
        print(escaped(str(self.output)))


def main() -> None:
    """Run the ``amd-objectness`` command."""
    commands: dict[str, Callable[..., Any]] = {
        "segment": Segment,
        "adapt": Adapt,
        "train": Train,
        "finetune-semantic": FinetuneSemantic,
        "evaluate": Evaluate,
        "import-weights": ImportWeights,
        "weights": partial(WeightsCommand, table=WEIGHTS),
        "export": Export,
    }
    run_commands(PROGRAM, f"{AMD_OBJECTNESS.title} ({AMD_OBJECTNESS.paper}).", commands)
