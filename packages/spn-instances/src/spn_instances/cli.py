"""The ``spn-instances`` command."""

from __future__ import annotations

from spn_instances.cli_train import Train
from vos_shared.cli import run_commands

PROGRAM = "spn-instances"


def main() -> None:
    """Run the ``spn-instances`` command."""
    run_commands(
        PROGRAM, "Instance segmentation with spatial propagation (Cheng et al., DAVIS 2017).", {"train": Train}
    )
