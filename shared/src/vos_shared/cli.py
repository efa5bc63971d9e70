"""The ``vos`` command, and functions for all command lines."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NoReturn, Protocol
from urllib.error import URLError

import tyro

from vos_shared.errors import UserError
from vos_shared.inputs import InputArguments
from vos_shared.terminal import commands_escaped, escaped

if TYPE_CHECKING:
    from vos_shared.datasets import VideoSequence
    from vos_shared.metrics.scores import Scores
    from vos_shared.set_evaluation import SetScores

# Commands import modules when they run, so that --help is instant and scoring does not load torch.


STOPPED: Final = 130
"""Exit code of a command that was stopped before its end."""


def run_cli(command: Callable[[], object], *, prog: str | None = None) -> int:
    """Run a command line; prints an error that the user can mend as one line instead of a traceback.

    These are `UserError`, refusals of the system to read or write a file, and lack of memory.

    Args:
        command: parses ``sys.argv`` and does the work.
        prog: name of the program; by default that of the script.

    Returns:
        The exit code: an int that the command returns, otherwise 0; 2 after such an error, 130 after Ctrl-C, 141 if the
        output is a pipe that was closed.
    """
    prog = prog or Path(sys.argv[0]).name
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # For encodings without "−" or "é".
            stream.reconfigure(errors="backslashreplace")
    try:
        result = command()
        if sys.stdout is not None:
            sys.stdout.flush()  # At exit no error could be caught.
    except UserError as error:
        message = str(error).removeprefix(f"{prog}: ")  # Many messages begin with the name of their method.
        print(f"{prog}: {escaped(message)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{prog}: stopped; what is finished stays", file=sys.stderr)
        return STOPPED
    except BrokenPipeError:  # As in `vos doctor demo | head -1`, which is no error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes again at exit.
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
        """Do the work; returns the exit code, or None for 0."""
        ...


def run_commands(prog: str, description: str, commands: Mapping[str, Callable[..., Any]]) -> NoReturn:
    """Run a console script with several commands; does not return.

    Args:
        prog: name of the script.
        description: description for ``--help``.
        commands: dataclasses of `Command`, or functions that return one, by name.
    """

    def command() -> int | None:
        chosen: Command = tyro.extras.subcommand_cli_from_dict(dict(commands), prog=prog, description=description)
        with commands_escaped():  # Help may be coloured.
            return chosen.run()

    sys.exit(run_cli(command, prog=prog))


def _is_want_of_memory(error: MemoryError | RuntimeError) -> bool:
    """Whether memory ran out, in Python or in PyTorch, on the CPU or a GPU."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in str(error)
    )


def _refusal(error: OSError) -> str | None:
    """One line about a file error; None if the error is not about a file."""
    if isinstance(error, URLError):  # PyTorch has printed the address before.
        return f"a download failed ({error.reason}); check the connection, or store the file there by hand"
    file = error.filename2 or error.filename  # Of two, the first is a temporary file.
    if file is not None:
        return f"{file}: {error.strerror}"
    return error.strerror if error.errno in {errno.ENOSPC, errno.EDQUOT} else None  # A write does not name its file.


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Score results by the protocols of the benchmarks, in percent.

    Videos: J, F, their mean, recall and decay; only J for youtube-objects (called IU there), segtrack-v2 and fbms59.
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
    """Protocol. davis2016: one foreground; davis2017: each object; davis2017-unsupervised: up to 20 proposals, assigned
    to objects; youtube-objects: one foreground, without the first labelled frame; segtrack-v2, fbms59: one foreground
    in every labelled frame; the others are for images."""
    root: Path
    """Folder of the data set; for DAVIS the one that contains JPEGImages."""
    split: str | None = None
    """Name or path of a list of sequences or images; by default val, for FBMS-59 Testset, otherwise all."""
    sequences: tuple[str, ...] = ()
    """Score only these sequences of the split."""
    resolution: str | None = None
    """For DAVIS: folder below JPEGImages; by default 480p, or the only one."""
    results: Path
    """Results folder with <sequence>/<frame>.png; for images also <image>.png, and soft masks: grey PNG, npy, npz, or
    the folder of segment --soft-masks."""
    set_wise: bool = False
    """For any data set with masks: IoU of background and foreground, summed over all frames, as in the evaluator
    released with AMD, instead of the measures of the data set."""
    threshold: float = 0.5
    """Threshold on soft masks, for object-discovery and youtube-objects-boxes."""
    json: Path | None = None
    """Write all scores, including those of each frame, to this file."""
    csv: Path | None = None
    """Write a row for each object (or sequence, class, image) to this file."""
    workers: int = 1
    """Number of processes."""

    def run(self) -> None:
        """Score, print a table, write the files."""
        from vos_shared.atomic import require_json

        require_json(self.json)
        scores = self._scored()
        print(scores.table())
        if self.json is not None:
            scores.write_json(self.json)
        if self.csv is not None:
            scores.write_csv(self.csv)

    def _scored(self) -> Scores | SetScores:
        from vos_shared.evaluation import OBJECTS, evaluate, without_a_true_id
        from vos_shared.set_evaluation import SET_PROTOCOLS, evaluate_set, evaluate_set_wise

        sequences, results, workers = self._load(), self.results, self.workers
        if self.set_wise:
            return evaluate_set_wise(sequences, results, workers=workers)
        if self.dataset in SET_PROTOCOLS:
            return evaluate_set(
                self.dataset, sequences, results, root=self.root, threshold=self.threshold, workers=workers
            )
        scores = evaluate(self.dataset, sequences, results, workers=workers)
        if self.dataset == OBJECTS:
            for line in without_a_true_id(scores, sequences, results):
                print(f"note: {line}", file=sys.stderr)
        return scores

    def _load(self) -> list[VideoSequence]:
        from vos_shared.datasets import davis2017, load_dataset
        from vos_shared.evaluation import PROPOSALS

        only = self.sequences or None
        if self.dataset == PROPOSALS:
            return davis2017(self.root, self.split, resolution=self.resolution, sequences=only, task="unsupervised")
        return load_dataset(self.dataset, self.root, self.split, only, self.resolution)


@dataclass(frozen=True, kw_only=True)
class DemoData:
    """Write synthetic clips with exact object ids as a DAVIS folder."""

    output: Annotated[Path, tyro.conf.Positional]
    """Folder to write; if it exists, it must be empty."""
    clips: int = 3
    """Number of sequences."""
    frames: int = 24
    """Number of frames in each."""
    size: tuple[int, int] = (240, 432)
    """Height and width."""
    objects: int = 3
    """Number of objects in each."""
    seed: int = 0
    """Seed; equal seeds give equal clips."""

    def run(self) -> None:
        """Write the clips."""
        from vos_shared.datasets.synthetic import write_new_davis_tree

        if self.seed < 0:
            raise UserError(f"--seed is {self.seed}; give 0 or more")
        write_new_davis_tree(
            self.output, clips=self.clips, frames=self.frames, size=self.size, seed=self.seed, objects=self.objects
        )
        print(f"{self.clips} clips of {self.frames} frames in {escaped(str(self.output))}")


@dataclass(frozen=True, kw_only=True)
class Overlay(InputArguments):
    """Draw masks over their videos: write an MP4 for each sequence."""

    masks: Path | None = None
    """Results folder with <sequence>/<frame>.png, or for one video the folder of its masks; by default the masks of the
    data set."""
    output: Path
    """The MP4 file; for a data set, the folder for <sequence>.mp4."""
    fps: float | None = None
    """Frames a second; by default as in the video, or 24 for a folder of frames."""
    alpha: float = 0.5
    """Opacity of the objects, 0 to 1."""

    def run(self) -> None:
        """Write the videos."""
        from vos_shared.overlay_video import draw_sequences

        if self.fps is not None and not 0.001 <= self.fps <= 1e6:  # Rates are fractions with denominators up to 1001.
            raise UserError(f"--fps is {self.fps:g}; give 0.001 to 1,000,000 frames a second")
        if not 0 <= self.alpha <= 1:
            raise UserError(f"--alpha is {self.alpha:g}; give 0 to 1")
        draw_sequences(self.load(), self.masks, self.output, fps=self.fps, alpha=self.alpha, many=self.is_dataset)


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """Report what a data set or results folder contains and what is wrong with it; exit code 1 for problems."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Folder of a data set, or results folder with <sequence>/<frame>.png."""
    root: Path | None = None
    """For a results folder: folder of the data set to compare it with."""
    dataset: str | None = None
    """Kind of the data set in --root; by default davis2017. Without --root: kind of FOLDER, for example saliency,
    segtrack-v2, fbms59 or voc2012; DAVIS, YouTube-VOS and YouTube-Objects are recognised without it."""
    split: str | None = None
    """Split or list of sequences of the data set; by default the validation split."""

    def run(self) -> int:
        """Examine the folder and print the report."""
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
    """Check results and write the zip file for a benchmark's server, or check a zip file."""

    dataset: Literal["davis2016", "davis2017", "youtube-vos"]
    """The benchmark."""
    root: Path
    """Folder of the data set."""
    split: str | None = None
    """Split or list of sequences; by default val, for YouTube-VOS valid."""
    results: Path | None = None
    """Results folder with <sequence>/<frame>.png to submit."""
    output: Path | None = None
    """The zip file to write."""
    check: Path | None = None
    """A zip file to check, instead of --results and --output."""

    def run(self) -> None:
        """Check and write."""
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
