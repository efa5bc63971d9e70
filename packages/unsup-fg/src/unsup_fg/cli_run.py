"""The ``run`` command: both iterations, from videos to students."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from unsup_fg.pipeline_settings import PipelineSettings
from vos_shared.terminal import escaped
from vos_shared.training.arguments import RunArguments


@dataclass(frozen=True, kw_only=True)
class Run(RunArguments):
    """Run the whole method: VideoPCA, selection, students, EvalSeg-Net, second iteration, and a report.

    A run that was stopped or killed continues when the command is called again. OUTPUT of other settings or videos is
    refused. The exit code is 1 if videos could not be read and were skipped. Options such as --steps take a value for
    each network: --steps lowres 100000 evalseg 5000.
    """

    videos: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Data sets: folders of video files or of folders of frames. Masks are selected within each. Single videos and
    patterns in quotes work as well."""
    output: Path
    """Folder of the run, with OUTPUT/weights and OUTPUT/report.html."""
    resume: Annotated[bool, tyro.conf.Suppress] = True
    settings: Annotated[PipelineSettings, tyro.conf.OmitArgPrefixes] = field(default_factory=PipelineSettings)

    def check(self) -> None:
        """Accept any folder: a run always resumes."""

    def run(self) -> int:
        """Run."""
        from unsup_fg.pipeline import Pipeline

        fabric = self.launch()
        pipeline = Pipeline(
            self.output,
            self.settings,
            fabric,
            precision=self.precision,
            minutes=self.minutes,
            workers=self.workers,
        )
        outcome = pipeline.run(self.videos)
        if fabric.is_global_zero:
            print(f"weights: {escaped(str(outcome.weights))}")
            print(f"report: {escaped(str(outcome.page))}")
            tell("left out, too short", outcome.left_out)
            tell("skipped, cannot be read", outcome.unreadable)
        return 1 if outcome.unreadable else 0


def tell(what: str, notes: Mapping[str, str]) -> None:
    """Print a list of videos with a reason for each."""
    if notes:
        print(f"{len(notes)} {'video' if len(notes) == 1 else 'videos'} {what}:", file=sys.stderr)
    for name, why in notes.items():
        print(f"  {escaped(name)}: {escaped(why)}", file=sys.stderr)
