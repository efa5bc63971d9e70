"""The ``vos`` command, and what all command lines share."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NoReturn, Protocol

import tyro

from vos_shared.errors import UserError
from vos_shared.inputs import InputArguments
from vos_shared.terminal import commands_escaped, escaped

if TYPE_CHECKING:
    from vos_shared.datasets import VideoSequence
    from vos_shared.metrics.scores import Scores
    from vos_shared.set_evaluation import SetScores

# Commands import what they need when they run: --help is instant, and scoring never loads torch.


STOPPED: Final = 130
"""Exit code of what was asked to stop before its end."""


def run_cli(command: Callable[[], object], *, prog: str | None = None) -> int:
    """Run a command line; what the user can mend becomes one line instead of a traceback.

    That is each `UserError`, and a file or folder that the system refuses to read or write.

    Args:
        command: parses ``sys.argv`` and does the work.
        prog: name of the program; by default that of the script.

    Returns:
        The exit code: 0, 2 after such an error, 130 after Ctrl-C, 141 if nobody reads the output, or what the
        command returns if that is an int.
    """
    prog = prog or Path(sys.argv[0]).name
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # A terminal or file whose encoding lacks "−" or "é" must not end a run.
            stream.reconfigure(errors="backslashreplace")
    try:
        result = command()
        if sys.stdout is not None:
            sys.stdout.flush()  # Python would do it where no error can be caught.
    except UserError as error:
        print(
            f"{prog}: {escaped(str(error).removeprefix(f'{prog}: '))}", file=sys.stderr
        )  # Many messages name their method.
        return 2
    except KeyboardInterrupt:
        print(f"{prog}: stopped; what is finished stays", file=sys.stderr)
        return STOPPED
    except BrokenPipeError:  # As in `vos doctor demo | head -1`; not an error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end.
        return 141
    except OSError as error:
        if (refusal := _refusal(error)) is None:
            raise
        print(f"{prog}: {escaped(refusal)}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not _is_want_of_memory(error):
            raise
        print(f"{prog}: there is not enough memory; take smaller frames, batches or settings", file=sys.stderr)
        return 2
    return result if isinstance(result, int) else 0


class Command(Protocol):
    """A command of a console script: a dataclass whose fields are its options."""

    def run(self) -> int | None:
        """Do the work; an int is the exit code."""
        ...


def run_commands(prog: str, description: str, commands: Mapping[str, Callable[..., Any]]) -> NoReturn:
    """Run a console script with several commands; does not return.

    Args:
        prog: its name.
        description: for ``--help``.
        commands: the dataclass of each `Command`, or what makes one, by name.
    """

    def command() -> int | None:
        chosen: Command = tyro.extras.subcommand_cli_from_dict(dict(commands), prog=prog, description=description)
        with commands_escaped():  # Not before: help may be coloured.
            return chosen.run()

    sys.exit(run_cli(command, prog=prog))


def _is_want_of_memory(error: MemoryError | RuntimeError) -> bool:
    """Also in PyTorch's words, for GPUs and for the CPU."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in str(error)
    )


def _refusal(error: OSError) -> str | None:
    """One line about a file error; None if the error is not about a file."""
    file = error.filename2 or error.filename  # The first of two is a temporary one that should have been renamed.
    if file is not None:
        return f"{file}: {error.strerror}"
    return error.strerror if error.errno in {errno.ENOSPC, errno.EDQUOT} else None  # Writing does not name the file.


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Score results as the benchmarks do, in percent.

    Videos: J, F, their mean, recall and decay; J alone on youtube-objects (there called IU), segtrack-v2 and fbms59.
    Images: MAE, F, S, E and weighted F for saliency; mean IoU of classes for voc2012; P and J for object-discovery;
    CorLoc for youtube-objects-boxes.
    """

    dataset: Literal[
        "davis2016",
        "davis2017",
        "davis2017-unsupervised",
        "youtube-objects",
        "segtrack-v2",
        "fbms59",
        "saliency",
        "voc2012",
        "object-discovery",
        "youtube-objects-boxes",
    ] = "davis2017"
    """Protocol: one foreground; each object; up to 20 proposals that are assigned to objects; one foreground in every
    labelled frame but the first; in every labelled frame (two data sets); and those of images."""
    root: Path
    """The data set's folder; DAVIS: the one with JPEGImages in it."""
    split: str | None = None
    """Name or path of the list of sequences or images; by default val, of FBMS-59 Testset, of others all."""
    sequences: tuple[str, ...] = ()
    """Of the split, only these."""
    resolution: str | None = None
    """Of DAVIS: folder below JPEGImages; by default 480p, or the only one."""
    results: Path
    """Folder with <sequence>/<frame>.png to be scored. Of images also <image>.png, and soft masks: grey PNG, npy, npz,
    or the folder of segment --soft-masks."""
    set_wise: bool = False
    """Of any data set with masks: IoU of background and foreground summed over all frames, as the evaluator released
    with AMD has it, in place of the data set's own measures."""
    threshold: float = 0.5
    """Of soft masks, for object-discovery and youtube-objects-boxes."""
    json: Path | None = None
    """Write everything, also frame by frame, to this file."""
    csv: Path | None = None
    """Write a row for each object (or sequence, class, image) to this file."""
    workers: int = 1
    """Processes."""

    def run(self) -> None:
        """Score, print the table, write the files."""
        from vos_shared.atomic import require_json

        require_json(self.json)
        scores, table = self._scored()
        print(table)
        if self.json is not None:
            scores.write_json(self.json)
        if self.csv is not None:
            scores.write_csv(self.csv)

    def _scored(self) -> tuple[Scores | SetScores, str]:
        """The scores and their table."""
        from vos_shared.evaluation import FBMS, SEGTRACK, evaluate
        from vos_shared.set_evaluation import SET_PROTOCOLS, evaluate_set, evaluate_set_wise
        from vos_shared.tables import score_table

        sequences = self._load()
        if self.set_wise:
            set_scores = evaluate_set_wise(sequences, self.results, workers=self.workers)
            return set_scores, set_scores.table()
        if self.dataset in SET_PROTOCOLS:
            set_scores = evaluate_set(
                self.dataset,
                sequences,
                self.results,
                root=self.root,
                threshold=self.threshold,
                workers=self.workers,
            )
            return set_scores, set_scores.table()
        scores = evaluate(self.dataset, sequences, self.results, workers=self.workers)
        table = score_table(scores)
        if self.dataset in (SEGTRACK, FBMS):  # Papers report one or the other mean.
            table += f"\nmean J of all frames alike: {100 * scores.frame_mean:.1f}"
        return scores, table

    def _load(self) -> list[VideoSequence]:
        from vos_shared.datasets import davis2017, load_dataset
        from vos_shared.evaluation import PROPOSALS

        only = self.sequences or None
        if self.dataset == PROPOSALS:
            return davis2017(self.root, self.split, resolution=self.resolution, sequences=only, task="unsupervised")
        return load_dataset(self.dataset, self.root, self.split, only, self.resolution)


@dataclass(frozen=True, kw_only=True)
class DemoData:
    """Write the synthetic clips with exact object ids, as a DAVIS folder."""

    output: Annotated[Path, tyro.conf.Positional]
    """Folder to write; it must be new or empty."""
    clips: int = 3
    """How many sequences."""
    frames: int = 24
    """Frames of each."""
    size: tuple[int, int] = (240, 432)
    """Height and width."""
    objects: int = 3
    """At most so many objects in a clip."""
    seed: int = 0
    """The same seed gives the same clips."""

    def run(self) -> None:
        """Write the tree."""
        from vos_shared.datasets.synthetic import write_new_davis_tree

        if self.seed < 0:
            raise UserError(f"--seed is {self.seed}; give 0 or more")
        write_new_davis_tree(
            self.output, clips=self.clips, frames=self.frames, size=self.size, seed=self.seed, objects=self.objects
        )
        print(f"{self.clips} clips of {self.frames} frames in {escaped(str(self.output))}")


@dataclass(frozen=True, kw_only=True)
class Overlay(InputArguments):
    """Draw masks over their video: one MP4 for each sequence."""

    masks: Path | None = None
    """Results folder with <sequence>/<frame>.png, or for one video the folder of its masks; by default the data set's
    own masks."""
    output: Path
    """The MP4 file; for a data set the folder for <sequence>.mp4."""
    fps: float | None = None
    """Frames a second; by default frames are shown when they are in the video, those of a folder 24 a second."""
    alpha: float = 0.5
    """Opacity of the objects, 0 to 1."""

    def run(self) -> None:
        """Write the videos."""
        from vos_shared.overlay_video import draw_sequences

        if self.fps is not None and not 0.001 <= self.fps <= 1e6:  # The writer's denominators end at 1001.
            raise UserError(f"--fps is {self.fps:g}; give 0.001 to 1,000,000 frames a second")
        if not 0 <= self.alpha <= 1:
            raise UserError(f"--alpha is {self.alpha:g}; give 0 to 1")
        draw_sequences(self.load(), self.masks, self.output, fps=self.fps, alpha=self.alpha, many=self.is_dataset)


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Say what a data set or results folder holds and what is wrong with it; exit code 1 if anything is."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Data set's folder, or results folder with <sequence>/<frame>.png."""
    root: Path | None = None
    """For a results folder: the data set's folder to compare it with."""
    dataset: str | None = None
    """How to read that data set, davis2017 by default. Without --root: read FOLDER as this data set, for example
    saliency, segtrack-v2, fbms59 or voc2012; DAVIS, YouTube-VOS and YouTube-Objects are recognised without it."""
    split: str | None = None
    """Split or list of sequences of that data set; by default the one that is validated on."""

    def run(self) -> int:
        """Examine, print the report."""
        from vos_shared.datasets import load_dataset
        from vos_shared.doctor import examine, examine_dataset

        if self.root is None and self.dataset is not None:
            report = examine_dataset(self.dataset, self.folder, self.split)
        else:
            sequences = load_dataset(self.dataset or "davis2017", self.root, self.split) if self.root else None
            report = examine(self.folder, sequences)
        print(report)
        return 1 if report.problems else 0


@dataclass(frozen=True, kw_only=True)
class Submit:
    """Write the zip file that a benchmark's server takes, if all masks are right; or check one."""

    dataset: Literal["davis2016", "davis2017", "youtube-vos"]
    """The benchmark."""
    root: Path
    """The data set's folder."""
    split: str | None = None
    """Split or list of sequences; by default val, of YouTube-VOS valid."""
    results: Path | None = None
    """Folder with <sequence>/<frame>.png to be submitted."""
    output: Path | None = None
    """The zip file to write."""
    check: Path | None = None
    """In place of the two: a zip file to check."""

    def run(self) -> None:
        """Check, write."""
        from vos_shared.submission import validate_submission, wanted_masks, write_submission

        if self.check is not None and self.results is None and self.output is None:
            count = validate_submission(self.dataset, wanted_masks(self.dataset, self.root, self.split), self.check)
            print(f"{escaped(str(self.check))} is complete: {count} masks")
        elif self.check is None and self.results is not None and self.output is not None:
            wanted = wanted_masks(self.dataset, self.root, self.split)
            count = write_submission(self.dataset, wanted, self.results, self.output)
            print(f"{count} masks in {escaped(str(self.output))}")
        else:
            raise UserError("give --results and --output to write a zip file, or --check and a zip file")


def main() -> None:
    """Run the ``vos`` command."""
    commands: dict[str, Callable[..., Command]] = {
        "evaluate": Evaluate,
        "demo-data": DemoData,
        "overlay": Overlay,
        "doctor": Doctor,
        "submit": Submit,
    }
    run_commands("vos", "Tools for video object segmentation data and results.", commands)
