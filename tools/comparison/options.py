"""The options of a comparison, and how their texts are split and checked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import tyro

from vos_shared.errors import UserError

LARGEST_SEED = 2**64 - 1
"""Largest seed of PyTorch's generators."""

LONGEST_PATIENCE = 10**8


COMPARED: Final = ("davis2016", "davis2017")
"""Data sets whose measures the report shows: J and F."""


@dataclass(frozen=True)
class Options:
    """Compare video object segmentation methods on a data set, on a video of yours, or on built-in synthetic clips.

    Without any option, all installed methods run on the synthetic clips. Each method runs in a separate process; if
    it fails, its row says why. Finished sequences are kept and not computed again by the same command, so a comparison
    may be stopped at any time; to start a method afresh, remove masks/METHOD in the output folder. Writes report.html
    (opens offline), metrics.json, metrics.csv and the masks.

    The exit code is 0 if every method ran, 1 if one failed, 2 if the input cannot be used.
    """

    dataset: str | None = None
    """The data set in the folder that --root names: davis2016 or davis2017."""
    root: Path | None = None
    """Folder of the data set, which holds JPEGImages and Annotations."""
    split: str | None = None
    """Part of the data set: a list in its ImageSets folder; by default val, or all sequences where there are no lists
    and no resolution folders (MOSE, LVOS). Without true masks (test-dev) there are no scores."""
    sequences: tuple[str, ...] = ()
    """Use only these sequences of the data set."""
    resolution: str | None = None
    """Folder below JPEGImages; by default 480p, or the only one."""
    video: Path | None = None
    """Segment this video file or folder of frames instead of a data set; without true masks there are no scores."""
    prompt: Path | None = None
    """Palette PNG with the objects in the first frame of --video; methods that need no mask run without it."""
    accept_damaged: bool = False
    """Use the frames that can be decoded of a --video that is damaged or cut short; the report says so."""
    methods: tuple[str, ...] | None = None
    """Methods or variants to run; by default all that are installed. The option without a name runs none."""
    results: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="NAME=FOLDER")] = ()
    """Compare with masks that were computed elsewhere: FOLDER/<sequence>/<frame>.png. May be given again."""
    weights: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="METHOD=WEIGHTS")] = ()
    """Weights of a method or variant: a file, or a name that the method knows. May be given again."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Precision of the networks."""
    output: Path = Path("comparison")
    """Folder for all files that are written."""
    workers: int = 1
    """Processes that score masks. Methods always run one after another, as they would slow each other down."""
    patience: float = 3600
    """Seconds after which a method that makes no progress (no frame done, not loaded) is stopped; its row says so."""
    seed: int = 0
    """Seed of the methods' random numbers and of the bootstrap intervals."""


def check_options(options: Options) -> None:
    """Refuse options that do not fit together.

    Raises:
        UserError: two kinds of input at once, half of one, or a number out of range.
    """
    if options.video is not None and options.dataset is not None:
        raise UserError("--video and --dataset are two kinds of input; give one of them")
    if options.dataset not in (None, *COMPARED):
        raise UserError(
            f"compare reads {' and '.join(COMPARED)}, not {options.dataset}; for other data sets run "
            "METHOD segment --dataset NAME for each method, then vos evaluate --dataset NAME"
        )
    if options.dataset is not None and options.root is None:
        raise UserError(f"--dataset {options.dataset} needs --root, the folder with JPEGImages and Annotations")
    if options.root is not None and options.dataset is None:
        raise UserError("--root needs --dataset, which says how to read the folder")
    if options.prompt is not None and options.video is None:
        raise UserError("--prompt belongs to --video; data sets bring their own first masks")
    if options.accept_damaged and options.video is None:
        raise UserError("--accept-damaged belongs to --video")
    if options.sequences and options.dataset is None:
        raise UserError("--sequences belongs to --dataset")
    if options.resolution and options.dataset is None:
        raise UserError("--resolution belongs to --dataset")
    if options.workers < 1:
        raise UserError(f"--workers is {options.workers}; it must be at least 1")
    if not 0 < options.patience <= LONGEST_PATIENCE:
        raise UserError(
            f"--patience is {options.patience:g}; it must be above 0 and at most {LONGEST_PATIENCE} seconds"
        )
    if not 0 <= options.seed <= LARGEST_SEED:
        raise UserError(f"--seed is {options.seed}; it must be from 0 to {LARGEST_SEED}")


def named_values(option: str, texts: Iterable[str]) -> dict[str, str]:
    """Split the `NAME=VALUE` texts of an option.

    Raises:
        UserError: a text without name or value, a name that cannot be a folder name, a name given twice.
    """
    values: dict[str, str] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if not name or not value:
            raise UserError(f"{option} {text}: expected NAME=VALUE, for example {option} osvos=../masks/osvos")
        check_row_name(name)
        if name in values:
            raise UserError(f"{option} {name}=.. is given twice; each name may be used once")
        values[name] = value
    return values


def check_row_name(name: str) -> None:
    """Refuse a name that cannot be a folder of its own under the output folder.

    Raises:
        UserError: a separator, a leading dot, or a character that is not printable.
    """
    if not name or name.startswith(".") or not name.isprintable() or set(name) & set('/\\:*?"<>|'):
        raise UserError(f"{name!r} cannot name a row of the comparison: it must be fit for a folder name")


def check_names_differ(methods: Iterable[str], results: Iterable[str]) -> None:
    """Refuse masks from elsewhere under the name of a method that runs.

    Raises:
        UserError: with the names that clash.
    """
    if clash := sorted(set(methods) & set(results)):
        raise UserError(f"--results {clash[0]}=.. has the name of a method that runs too; choose another name")
