"""The ``train`` command: a network on records, with the published settings by default."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from unsup_fg.presets import PUBLISHED, TrainingSettings
from unsup_fg.settings import Architecture, NetworkName
from vos_shared.training.arguments import RunArguments


@dataclass(frozen=True, kw_only=True)
class TrainNetwork(RunArguments):
    """Train a network from random initial values."""

    records: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders of TFRecord shards: of students from records, of EvalSeg-Net in the official layout."""
    network: Annotated[NetworkName, tyro.conf.Suppress]
    settings: TrainingSettings
    width: float = 1.0
    """Factor of the published numbers of channels."""
    fixed: bool = False
    """Without two faults of the released code: train the dilated kernels of DilateU-Net, and let the block norms of
    DenseU-Net use moving averages at inference. Official weights need the faults."""
    input_size: int | None = None
    """For U-Nets: side of the input in pixels, 256 as published."""

    def run(self) -> int:
        """Train."""
        from unsup_fg.records import Records
        from unsup_fg.training import train

        architecture = Architecture(self.network, self.width, self.fixed, self.input_size)
        self.check()
        records = Records(*self.records)
        fabric = self.launch()
        options = self.run_options(f"{len(records)} in {', '.join(folder.resolve().name for folder in self.records)}")
        return self.ended(train(architecture, records, self.settings, options, fabric), fabric)


if TYPE_CHECKING:
    AnyNetwork = TrainNetwork
else:  # One subcommand for each network.
    _GIVEN: dict[str, Any] = {"output": tyro.MISSING, "records": tyro.MISSING}
    AnyNetwork = tyro.extras.subcommand_type_from_defaults(
        {name: TrainNetwork(network=name, settings=settings, **_GIVEN) for name, settings in PUBLISHED.items()},
        prefix_names=False,
    )


@dataclass(frozen=True)
class Train:
    """Train a student on selected soft masks, or EvalSeg-Net on soft masks with labels."""

    what: Annotated[AnyNetwork, tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes]
    """The network."""

    def run(self) -> int:
        """Train."""
        return self.what.run()
