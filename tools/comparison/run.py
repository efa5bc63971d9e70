"""A comparison from input to report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from comparison.environment import describe_environment
from comparison.inputs import Inputs, fingerprints, open_inputs, required_masks
from comparison.jobs import Job
from comparison.options import Options, check_names_differ, named_values
from comparison.outputs import metrics_csv, metrics_json
from comparison.planning import Choice, choose_methods, plan
from comparison.records import Given, Row
from comparison.report import Contents, write_report
from comparison.report.pictures import take_pictures
from comparison.runner import ending_on_signals, run_job, try_loading
from comparison.scoring import score
from comparison.tables import score_table, speed_table
from comparison.terminal import table_text
from vos_shared.atomic import write_json, write_text
from vos_shared.datasets import VideoSequence
from vos_shared.errors import BadResults, UserError
from vos_shared.folders import mask_files
from vos_shared.masks import describe_size, read_mask
from vos_shared.results import require_masks
from vos_shared.terminal import escaped


def compare(options: Options) -> int:
    """Run the methods of the options; print and write the results.

    Errors of the input are found before the first method starts.

    Returns:
        0 if every row has a result, else 1.

    Raises:
        UserError: options, data, masks or weights that cannot be used.
    """
    options = _with_absolute_paths(options)  # A method could change the working folder.
    _make_folders(options.output)
    with ending_on_signals():
        inputs = open_inputs(options)
        folders = {name: Path(folder) for name, folder in named_values("--results", options.results).items()}
        _check_complete(folders, inputs)
        choice = choose_methods(options)
        check_names_differ(choice.names, folders)
        jobs, stillborn = plan(choice, options, inputs, fingerprints(inputs))
        if not jobs and not folders:
            _nothing_to_do(stillborn)
        others = [_scored(_row_of_folder(name, folder), inputs, options) for name, folder in folders.items()]
        for job in jobs:
            _check_weights(job, options.patience)
        rows = [*stillborn, *(_run(job, inputs, options) for job in jobs), *others]
        _write(rows, inputs, options, choice)
    return int(any(row.failure for row in rows))


def _with_absolute_paths(options: Options) -> Options:
    root, video, prompt = (path.absolute() if path else None for path in (options.root, options.video, options.prompt))
    return replace(options, output=options.output.absolute(), root=root, video=video, prompt=prompt)


def _make_folders(output: Path) -> None:
    try:
        (output / "logs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {output}: no folder can be made there ({error.strerror}); choose another") from error


def _check_complete(folders: dict[str, Path], inputs: Inputs) -> None:
    names = required_masks(inputs)
    for folder in folders.values():
        require_masks(folder, names)


def _nothing_to_do(stillborn: list[Row]) -> None:
    reasons = "; ".join(f"{row.label}: {row.failure}" for row in stillborn)
    raise UserError(f"there is nothing to compare: {reasons or 'no method is installed and no --results are given'}")


def _row_of_folder(name: str, folder: Path) -> Row:
    return Row(name, f"masks in {folder}", "", Given.UNKNOWN, folder)


def _check_weights(job: Job, patience: float) -> None:
    """Refuse weights of the command line that cannot be used; a method's default weights make a failed row only."""
    if job.weights is None or not job.pending():
        return
    failed = try_loading(job, patience)
    if failed is not None and failed.is_users:
        raise UserError(failed.reason)


def _run(job: Job, inputs: Inputs, options: Options) -> Row:
    failed = run_job(job, options.patience)
    row = job.row(failure=failed.reason if failed else None)
    try:
        return _scored(row, inputs, options)
    except UserError as error:  # A fault of the method, such as masks of another size, not of the user.
        return replace(row, failure=f"its masks cannot be used: {error}")


def _scored(row: Row, inputs: Inputs, options: Options) -> Row:
    """The row with its scores under each protocol that can score it."""
    if row.failure is not None:
        return row
    _check_masks(row.masks, inputs.sequences)
    protocols = [protocol for protocol in inputs.protocols if row.given in protocol.takes]
    scored = {
        protocol.name: score(protocol, inputs.sequences, row.masks, workers=options.workers, seed=options.seed)
        for protocol in tqdm(protocols, f"scoring {row.label}", unit="protocol", disable=None, leave=False)
    }
    return replace(row, scored=scored)


def _check_masks(folder: Path, sequences: Iterable[VideoSequence]) -> None:
    """Read all masks, as pictures show more frames than are scored.

    Raises:
        BadMask: a mask cannot be read, or holds no object ids.
        BadResults: a mask has another size than the frames.
    """
    for sequence in tqdm(sequences, f"checking {folder.name}", unit="sequence", disable=None, leave=False):
        masks = mask_files(folder / sequence.name)
        for path in (masks[name] for name in sequence.frame_names if name in masks):
            size = read_mask(path, binary=sequence.binary).shape
            if size != sequence.video.size:
                raise BadResults(
                    f"{path} is {describe_size(size)}, the frames of {sequence.name} are"
                    f" {describe_size(sequence.video.size)}; masks must have the size of their frames"
                )


def _write(rows: list[Row], inputs: Inputs, options: Options, choice: Choice) -> None:
    """Print the tables; write metrics and report to the output folder."""
    environment = describe_environment(options.device, choice.versions()) | {
        "Input": _input_text(options, inputs),
        "Precision": options.precision,
        "Seed": str(options.seed),
    }
    csv = metrics_csv(rows, inputs.protocols)
    write_text(options.output / "metrics.csv", csv)
    write_json(options.output / "metrics.json", metrics_json(rows, inputs.title, environment))
    masks = {row.label: row.masks for row in rows if row.failure is None}
    pictures = take_pictures(inputs.sequences, masks, show_truth=bool(inputs.protocols))
    contents = Contents(
        inputs.title, rows, inputs.protocols, pictures, environment, csv, len(inputs.sequences), inputs.unscored
    )
    report = options.output / "report.html"
    write_report(report, contents)
    for table in (*(score_table(rows, protocol) for protocol in inputs.protocols), speed_table(rows)):
        if any(line.cells for line in table.lines):
            print(f"\n{table_text(table)}")
    if inputs.unscored:
        print(f"\nno scores: {inputs.unscored}")
    if any(scored.overall.intervals for row in rows for scored in row.scored.values()):
        print("\n[..]: 95 % bootstrap interval over sequences")
    for row in rows:
        if row.failure is not None:
            print(f"\n{escaped(row.label)} has no result: {row.failure}")
    print(f"\nreport: {escaped(str(report.resolve()))}")


def _input_text(options: Options, inputs: Inputs) -> str:
    frames = sum(len(sequence.frame_names) for sequence in inputs.sequences)
    source = options.root or options.video or options.output / "demo"
    return f"{source}: {len(inputs.sequences)} sequences, {frames} frames"
