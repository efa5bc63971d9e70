"""The ``dense-ulearn`` command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro

from dense_ulearn.cli_train import Train
from dense_ulearn.method import DENSE_ULEARN
from dense_ulearn.settings import InferenceSettings, Layer
from dense_ulearn.weights import WEIGHTS
from vos_shared.cli import Evaluate, run_commands
from vos_shared.errors import UserError
from vos_shared.options import changed_settings
from vos_shared.segment import SegmentArguments, run_segment
from vos_shared.weights_command import ConvertArguments, WeightsCommand

PROGRAM = "dense-ulearn"


@dataclass(frozen=True, kw_only=True)
class Segment(SegmentArguments):
    """Segment videos: follow the objects of the first frame's mask; writes palette PNGs to OUTPUT/<sequence>/."""

    settings: Annotated[InferenceSettings, tyro.conf.OmitArgPrefixes] = field(default_factory=InferenceSettings)
    list: Path | None = None
    """Take the frames from a list with 'flag image mask' in each line, relative to SOURCE, and write
    OUTPUT/<layer>_vos/<sequence>/<frame>.png for the frames with flag 1, as the official program does."""
    pictures: bool = False
    """With --list: also draw all frames, in OUTPUT/<layer>_vis/."""

    def run(self) -> None:
        """Segment."""
        changed = changed_settings(self.settings)
        if self.list is None:
            if self.pictures:
                raise UserError("--pictures goes with --list; --overlay draws a video")
            run_segment(DENSE_ULEARN, self, **changed)
            return
        from dense_ulearn.official_lists import segment_list

        plain = {item.name: item.default for item in fields(SegmentArguments)}
        elsewhere = ("prompt", "overlay", "timing", "sequences", "soft_masks", "split", "dataset", "resolution")
        unused = [name for name in elsewhere if getattr(self, name) != plain[name]]
        if unused:
            raise UserError(
                f"--list names frames and masks itself; leave out --{', --'.join(unused).replace('_', '-')}"
            )
        options: dict[str, Any] = dict(DENSE_ULEARN.variants.get(self.variant or "", {}))
        layer = {**options, **changed}.get("layer", InferenceSettings().layer)
        segment_list(self.list, self, layer, changed, pictures=self.pictures)


@dataclass(frozen=True, kw_only=True)
class ImportWeights(ConvertArguments):
    """Turn an official snapshot into a safetensors file, or a file of ours into an official snapshot."""

    def run(self) -> None:
        """Convert."""
        from dense_ulearn.checkpoints import load_weights, numbers_of, save_weights, write_official

        to_ours = self.to_ours(".pth")
        weights = load_weights(self.source)
        if to_ours:
            save_weights(self.output, weights, half=self.half)
        else:
            write_official(self.output, weights.state, **numbers_of(weights.metadata), trained=weights.trained)
        print(f"{weights.description}: {self.output}")


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write the feature network as a program for torch.export: images [1, 3, H, W] to features [1, C, H/8, W/8]."""

    output: Annotated[Path, tyro.conf.Positional]
    """The file to write, .pt2; `torch.export.load` reads it without this package."""
    weights: str | None = None
    """A file, or the name of weights; by default those that come with the package."""
    layer: Layer = "res4"
    """Output of the network."""
    size: tuple[int, int] = (480, 854)
    """Height and width of the images."""

    def run(self) -> None:
        """Export."""
        from dense_ulearn.export import export_features

        export_features(self.output, self.weights, self.layer, self.size)
        print(self.output)


def main() -> None:
    """Run the ``dense-ulearn`` command."""
    commands: dict[str, Callable[..., Any]] = {
        "segment": Segment,
        "train": Train,
        "evaluate": Evaluate,
        "import-weights": ImportWeights,
        "weights": partial(WeightsCommand, table=WEIGHTS),
        "export": Export,
    }

    run_commands(PROGRAM, f"{DENSE_ULEARN.title} ({DENSE_ULEARN.paper}).", commands)
