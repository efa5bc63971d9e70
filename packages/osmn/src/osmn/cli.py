"""The ``osmn`` command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from osmn.cli_train import Train
from osmn.method import OSMN_METHOD
from osmn.settings import InferenceSettings, OnlineSettings
from osmn.weights import WEIGHTS
from vos_shared.cli import Evaluate, run_commands
from vos_shared.errors import UserError
from vos_shared.inputs import InputArguments
from vos_shared.options import changed_settings
from vos_shared.segment import SegmentArguments, run_segment
from vos_shared.weights_command import ConvertArguments, WeightsCommand

PROGRAM = "osmn"


@dataclass(frozen=True, kw_only=True)
class Segment(SegmentArguments):
    """Segment videos: follow the objects of the first frame's mask; writes palette PNGs to OUTPUT/<sequence>/."""

    settings: Annotated[InferenceSettings, tyro.conf.OmitArgPrefixes] = field(default_factory=InferenceSettings)

    def run(self) -> None:
        """Segment."""
        run_segment(OSMN_METHOD, self, **changed_settings(self.settings))


@dataclass(frozen=True, kw_only=True)
class FineTune(SegmentArguments):
    """Fine-tune the network on each object's first frame, then segment with it, as variant osmn+online does."""

    variant: Annotated[str | None, tyro.conf.Suppress] = "osmn+online"
    settings: Annotated[InferenceSettings, tyro.conf.OmitArgPrefixes] = field(default_factory=InferenceSettings)
    online: Annotated[OnlineSettings, tyro.conf.OmitArgPrefixes] = field(default_factory=OnlineSettings)

    def run(self) -> None:
        """Fine-tune and segment."""
        run_segment(OSMN_METHOD, self, **changed_settings(self.settings), **changed_settings(self.online))


@dataclass(frozen=True, kw_only=True)
class Merge(InputArguments):
    """Merge objects that were segmented one by one: argmax over their soft masks and 0.5 for the background."""

    soft_masks: Path
    """Folder with <sequence>/<id>/<frame>.npy, from segment --soft-masks or from the official programs."""
    output: Path
    """Folder for the masks."""

    def run(self) -> None:
        """Merge all sequences of the data set."""
        from osmn.merging import merge_sequence
        from vos_shared.results import ResultsTree, require_apart

        sequences = self.load()
        require_apart(self.soft_masks, self.output, (sequence.name for sequence in sequences))
        tree = ResultsTree(self.output, settings={"merged": str(self.soft_masks)})
        for sequence in sequences:
            merge_sequence(self.soft_masks / sequence.name, sequence, tree)
        print(f"{len(sequences)} {'sequence' if len(sequences) == 1 else 'sequences'} in {self.output}")


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """Convert a data set into the layout that the official programs read; this package does not need it."""

    dataset: Annotated[Literal["davis", "youtube-objects"], tyro.conf.Positional]
    """davis: one binary mask an object, in Annotations/<resolution>_split and _all. youtube-objects: Images/, Labels/
    and all.txt from the original folders."""
    root: Annotated[Path, tyro.conf.Positional]
    """Folder of the data set."""
    output: Path | None = None
    """Folder to write; by default ROOT, for davis its Annotations."""
    version: Literal["2016", "2017"] = "2017"
    """davis: which lists name the sequences, ImageSets/<version>."""
    splits: tuple[str, ...] = ("train", "val")
    """davis: names of these lists."""

    def run(self) -> None:
        """Write the files."""
        if self.dataset == "youtube-objects":
            from vos_shared.datasets.youtube_objects import prepare_youtube_objects

            prepare_youtube_objects(self.root, self.output or self.root)
            print(self.output or self.root)
            return
        from osmn.preprocessing import split_objects
        from vos_shared.datasets import davis2017

        lists = [self.root / "ImageSets" / self.version / f"{split}.txt" for split in self.splits]
        found = [path for path in lists if path.is_file()]
        if not found:
            raise UserError(f"{self.root} has none of the lists {', '.join(map(str, lists))}")
        sequences = [sequence for path in found for sequence in davis2017(self.root, path)]
        resolution = next(iter(sequences[0].annotations.values())).parent.parent.name
        annotations = self.output or self.root / "Annotations"
        split_objects(sequences, annotations, resolution)
        names = ", ".join(path.stem for path in found)
        print(f"{len(sequences)} sequences of {names} in {annotations}/{resolution}_split and {resolution}_all")


@dataclass(frozen=True, kw_only=True)
class ImportWeights(ConvertArguments):
    """Turn an official TensorFlow checkpoint into a safetensors file, or a file of ours into an official one."""

    def run(self) -> None:
        """Convert."""
        from osmn.checkpoints import load_weights, save_weights

        to_ours = self.to_ours(None)
        snapshot = load_weights(self.source)
        if to_ours:
            save_weights(self.output, snapshot.model, snapshot.scale_value, snapshot.metadata, half=self.half)
        else:
            from osmn.official import to_official
            from vos_shared.checkpoints.tensorflow import write_checkpoint

            write_checkpoint(self.output, to_official(snapshot.model))
            if snapshot.shorter_side is not None:
                print(
                    "a TensorFlow checkpoint does not record the frame size of these weights; use it with "
                    f"osmn segment --shorter-side {snapshot.shorter_side}"
                )
        print(f"{snapshot.description}: {self.output}")


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write the network with torch.export: one program for the visual modulation, one for a frame."""

    output: Annotated[Path, tyro.conf.Positional]
    """Folder to write: visual.pt2 (guide [1, 3, 224, 224] -> gamma) and frame.pt2 (image, spatial guide, gamma ->
    logits); torch.export.load reads them without this package."""
    weights: str | None = None
    """A file, or the name of weights; by default those that come with the package."""
    size: tuple[int, int] = (480, 854)
    """Height and width of the frames."""

    def run(self) -> None:
        """Export."""
        from osmn.export import export_programs

        for path in export_programs(self.output, self.weights, self.size):
            print(path)


def main() -> None:
    """Run the ``osmn`` command."""
    commands: dict[str, Callable[..., Any]] = {
        "segment": Segment,
        "finetune": FineTune,
        "merge": Merge,
        "train": Train,
        "evaluate": Evaluate,
        "preprocess": Preprocess,
        "import-weights": ImportWeights,
        "weights": partial(WeightsCommand, table=WEIGHTS),
        "export": Export,
    }

    run_commands(PROGRAM, f"{OSMN_METHOD.title} ({OSMN_METHOD.paper}).", commands)
