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
    """Do all of it: VideoPCA, selection, students, EvalSeg-Net, second iteration; ends with OUTPUT/report.html.

    What is finished in OUTPUT is not redone, so a run that was stopped or killed goes on when it is called again. With
    other settings or videos it is refused. Exit code 1 says that some videos could not be read and were skipped.
    Options such as --steps name networks: --steps lowres 100000 evalseg 5000.
    """

    videos: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Data sets: folders of video files or of folders of frames. Masks are selected within each. Single videos and
    patterns in quotes work as well."""
    output: Path
    """Folder of the run. The students are in OUTPUT/weights."""
    resume: Annotated[bool, tyro.conf.Suppress] = True
    settings: Annotated[PipelineSettings, tyro.conf.OmitArgPrefixes] = field(default_factory=PipelineSettings)

    def check(self) -> None:
        """Nothing: a run always goes on where it was."""

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
            print(escaped(f"weights: {outcome.weights}\nreport: {outcome.page}"))
            tell("left out, too short", outcome.left_out)
            tell("skipped, cannot be read", outcome.unreadable)
        return 1 if outcome.unreadable else 0


def tell(what: str, notes: Mapping[str, str]) -> None:
    """List videos and what is wrong with them."""
    if notes:
        print(f"{len(notes)} {'video' if len(notes) == 1 else 'videos'} {what}:", file=sys.stderr)
    for name, why in notes.items():
        print(f"  {escaped(name)}: {escaped(why)}", file=sys.stderr)
