"""The ``spn-instances`` command."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from spn_instances.cli_train import Train
from spn_instances.method import SPN_INSTANCES
from spn_instances.settings import InferenceSettings, OnlineSettings
from spn_instances.weights import WEIGHTS
from vos_shared.cli import Evaluate, run_commands
from vos_shared.errors import UserError
from vos_shared.options import changed_settings
from vos_shared.segment import SegmentArguments, run_segment
from vos_shared.weights_command import ConvertArguments, WeightsCommand

if TYPE_CHECKING:
    from vos_shared.metrics.scores import Scores

PROGRAM = "spn-instances"
ONLINE = "spn-instances+online"
NETWORKS = "networks"


@dataclass(frozen=True, kw_only=True)
class Segment(SegmentArguments):
    """Segment videos: follow the objects of the first frame's mask; writes palette PNGs to OUTPUT/<sequence>/."""

    settings: Annotated[InferenceSettings, tyro.conf.OmitArgPrefixes] = field(default_factory=InferenceSettings)

    def run(self) -> None:
        """Segment."""
        run_segment(SPN_INSTANCES, self, **changed_settings(self.settings))


@dataclass(frozen=True, kw_only=True)
class FineTune(SegmentArguments):
    """Fine-tune networks on first frames, then segment with them, as variant spn-instances+online does."""

    variant: Annotated[str | None, tyro.conf.Suppress] = ONLINE
    settings: Annotated[InferenceSettings, tyro.conf.OmitArgPrefixes] = field(default_factory=InferenceSettings)
    online: Annotated[OnlineSettings, tyro.conf.OmitArgPrefixes] = field(default_factory=OnlineSettings)

    def run(self) -> None:
        """Fine-tune and segment."""
        run_segment(SPN_INSTANCES, self, **changed_settings(self.settings), **changed_settings(self.online))


@dataclass(frozen=True, kw_only=True)
class Ablation(SegmentArguments):
    """Print the paper's table of stages: segment and score a data set once for each row, in OUTPUT/<row>/."""

    prompt: Annotated[Path | None, tyro.conf.Suppress] = None
    soft_masks: Annotated[Path | None, tyro.conf.Suppress] = None
    timing: Annotated[Path | None, tyro.conf.Suppress] = None
    variant: Literal["spn-instances", "spn-instances+online"] = "spn-instances"
    """Without fine-tuned networks, or with them; all rows share these, from OUTPUT/networks or the folder --models."""
    settings: Annotated[InferenceSettings, tyro.conf.OmitArgPrefixes] = field(default_factory=InferenceSettings)
    online: Annotated[OnlineSettings, tyro.conf.OmitArgPrefixes] = field(default_factory=OnlineSettings)

    def run(self) -> None:
        """Segment, score, print."""
        from spn_instances.ablation import ablation, rows, tuning_time

        if not self.is_dataset:
            raise UserError(f"{self.source} is not a data set; the table needs one, with masks of its frames")
        tuned = self.variant == ONLINE
        changed = changed_settings(self.settings) | changed_settings(self.online)
        if fixed := [name for options in rows(online=True).values() for name in options if name in changed]:
            raise UserError(
                f"spn-instances: the rows turn stages off by themselves; leave out {_flag(f'no_{fixed[0]}')}"
            )
        if not tuned and changed_settings(self.online):
            raise UserError(f"spn-instances: {_flag(min(changed_settings(self.online)))} needs --variant {ONLINE}")
        print(ablation(self._scored, online=tuned))
        if tuned:
            names = [sequence.name for sequence in self.load()]
            print(tuning_time(self.online.models or self.output / NETWORKS, names))

    def _scored(self, row: str, options: Mapping[str, Any]) -> Scores:
        from vos_shared.evaluation import evaluate

        given = changed_settings(self.settings)
        if self.variant == ONLINE:
            given |= {"models": self.output / NETWORKS} | changed_settings(self.online)
        folder = self.output / row.replace(", ", "-").replace(" ", "-")
        if self.settings.intermediate is not None:
            given["intermediate"] = self.settings.intermediate / folder.name
        run_segment(SPN_INSTANCES, replace(self, output=folder), **{**given, **options})
        return evaluate(self.dataset, self.load(), folder)


@dataclass(frozen=True, kw_only=True)
class ImportWeights(ConvertArguments):
    """Turn an official .caffemodel into a safetensors file, or a file of ours into a .caffemodel."""

    network: Literal["foreground", "refinement"] = "foreground"
    """The network in the file: a foreground or object net, or the refinement network."""
    upsamplers: bool = False
    """For .caffemodel: also write the frozen upsamplers, which pycaffe needs for inference (ResNet-101: 872 MB)."""

    def run(self) -> None:
        """Convert."""
        from spn_instances.checkpoints import Snapshot, load_weights, save_weights
        from spn_instances.networks import RefinementNet, ResNetF
        from spn_instances.official import write_official

        to_ours = self.to_ours(".caffemodel")
        if self.upsamplers and to_ours:
            raise UserError("--upsamplers is for .caffemodel files; leave it out")
        path = WEIGHTS.locate(self.source)
        snapshot: Snapshot[Any] = load_weights(path, ResNetF if self.network == "foreground" else RefinementNet)
        if to_ours:
            save_weights(self.output, snapshot.model, snapshot.metadata, half=self.half)
        else:
            write_official(self.output, snapshot.model, upsamplers=self.upsamplers)
        print(f"{snapshot.description}: {self.output}")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def main() -> None:
    """Run the ``spn-instances`` command."""
    commands: dict[str, Callable[..., Any]] = {
        "segment": Segment,
        "finetune": FineTune,
        "ablation": Ablation,
        "train": Train,
        "evaluate": Evaluate,
        "import-weights": ImportWeights,
        "weights": partial(WeightsCommand, table=WEIGHTS),
    }
    run_commands(PROGRAM, f"{SPN_INSTANCES.title} ({SPN_INSTANCES.paper}).", commands)
