"""The ``unsup-fg`` command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from unsup_fg.cli_run import Run, tell
from unsup_fg.cli_train import Train
from unsup_fg.method import UNSUP_FG, VIDEOPCA
from unsup_fg.settings import STUDENTS, StudentSettings
from unsup_fg.weights import EVALSEG, WEIGHTS
from vos_shared.cli import run_commands
from vos_shared.errors import UserError
from vos_shared.inputs import InputArguments
from vos_shared.options import changed_settings
from vos_shared.segment import SegmentArguments, run_segment
from vos_shared.terminal import escaped
from vos_shared.weights_command import ConvertArguments, WeightsCommand

if TYPE_CHECKING:
    from unsup_fg.selection import SelectedSet
    from vos_shared.datasets import VideoSequence


@dataclass(frozen=True, kw_only=True)
class VideoPCACommand(InputArguments):
    """Find the moving foreground of videos without any training.

    Give --output for object masks, --soft for soft masks, or both. Finished sequences, of the same input
    and settings, are skipped. Each sequence counts as one shot: cut videos at their cuts first.
    """

    output: Path | None = None
    """Folder for object masks: OUTPUT/<sequence>/<frame>.png, palette PNGs of the frames' size, 1 is foreground."""
    soft: Path | None = None
    """Folder for soft masks: SOFT/<sequence>/<frame>.png, grey PNGs of the working size, 255 is surely foreground."""
    size: int = 300
    """Working size: frames are resized to such a square; 0 works on them as they are."""
    components: int = 3
    """Principal components that explain the background."""
    longest_run: int = 300
    """Longer videos are split into runs of at most so many frames, which are labelled independently."""
    threshold: float = 0.5
    """Soft mask at and above which a pixel is foreground in the object masks."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps. Under torchrun each process takes its GPU and its share of the sequences."""
    overlay: bool = False
    """Also write OUTPUT/<sequence>.mp4, the foreground drawn over the frames."""
    timing: Path | None = None
    """Write a JSON file: frames a second, milliseconds a frame, decode / model / encode time, peak memory."""

    def run(self) -> int:
        """Label all unfinished sequences, write overlays and times.

        Returns:
            1 if videos could not be read and were skipped, else 0.
        """
        from unsup_fg.inference import SegmenterSettings, VideoPCASegmenter
        from unsup_fg.labelling import label_outputs
        from vos_shared.atomic import require_json
        from vos_shared.processing import check_outputs, draw, process, write_timing
        from vos_shared.runtime.device import choose_device
        from vos_shared.runtime.distributed import shard

        require_json(self.timing)
        if self.overlay and self.output is None:
            raise UserError("--overlay draws object masks; add --output FOLDER for them")
        settings = SegmenterSettings(self.components, self.size or None, self.longest_run, self.threshold)
        segmenter = VideoPCASegmenter(settings, choose_device(self.device))
        outputs = label_outputs(segmenter, masks=self.output, soft=self.soft)
        sequences = shard(self._worth_labelling(self.load(masks_required=False)))
        check_outputs(outputs, sequences, overlay=self.overlay)
        unreadable: dict[str, str] = {}
        process(
            sequences,
            segmenter,
            outputs,
            supervision=VIDEOPCA.supervision,
            device=segmenter.device,
            failed=lambda sequence, why: unreadable.setdefault(sequence.name, str(why)),
        )
        sequences = [sequence for sequence in sequences if sequence.name not in unreadable]
        if self.overlay:
            draw(sequences, outputs[0].tree)
        if self.timing is not None:
            write_timing(sequences, outputs[0].tree, self.timing)
        folders = [
            f"{kind} in {folder}" for kind, folder in (("masks", self.output), ("soft masks", self.soft)) if folder
        ]
        print(f"{len(sequences)} {'sequence' if len(sequences) == 1 else 'sequences'}: {', '.join(folders)}")
        tell("skipped, cannot be read", unreadable)
        return 1 if unreadable else 0

    def _worth_labelling(self, sequences: list[VideoSequence]) -> list[VideoSequence]:
        """Remove sequences that are too short to tell background from foreground; print their names."""
        from unsup_fg.videopca import SHORTEST_SHOT

        short = [sequence for sequence in sequences if len(sequence.frame_names) < SHORTEST_SHOT]
        if sequences and len(short) == len(sequences):
            raise UserError(
                f"{self.source} has no sequence of {SHORTEST_SHOT} or more frames, which VideoPCA needs to tell a "
                "background"
            )
        for sequence in short:
            print(f"{sequence.name} is left out: {len(sequence.frame_names)} frames, less than {SHORTEST_SHOT}")
        return [sequence for sequence in sequences if sequence not in short]


@dataclass(frozen=True, kw_only=True)
class Select:
    """Select the best soft masks of each data set: those with the highest mean of the pixels that are not zero.

    Empty masks and those of frames of one colour, in which VideoPCA sees only the centre, are left out.
    """

    soft: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders of soft masks, one for each data set: SOFT/<sequence>/<frame>.png, from videopca --soft."""
    output: Path
    """JSON file to write: the selected masks with their scores."""
    top: float = 0.15
    """Share of each data set to select; the paper's is 10 to 20 %."""

    def run(self) -> None:
        """Select."""
        from unsup_fg.selection import select, write_selection
        from vos_shared.atomic import require_json

        require_json(self.output)
        if not self.soft:
            raise UserError("give at least one folder of soft masks")
        sets = [select(folder, self.top) for folder in self.soft]
        write_selection(self.output, sets)
        for found in sets:
            print(
                f"{found.soft}: {len(found.kept)} of {found.masks} masks kept, {found.empty} show no object, "
                f"scores {found.kept[-1].score:.1f} to {found.kept[0].score:.1f}"
            )


@dataclass(frozen=True, kw_only=True)
class WriteRecords(InputArguments):
    """Write selected soft masks and their frames as TFRecord shards, from which students learn."""

    selection: Path
    """JSON file of select."""
    output: Path
    """Folder for the shards, train-NNNNN-of-NNNNN."""
    soft: Path | None = None
    """The folder of soft masks of the source; needed if the selection has several."""
    shards: int = 20
    """Number of files."""

    def run(self) -> None:
        """Write the shards."""
        from tqdm import tqdm

        from unsup_fg.records import write_student_records
        from vos_shared.processing import bar_hidden

        if not 1 <= self.shards <= 99999:
            raise UserError(f"--shards is {self.shards}; give 1 to 99999")
        chosen = self._set()
        with tqdm(total=len(chosen.kept), unit="record", disable=bar_hidden()) as bar:
            count = write_student_records(
                self.load(masks_required=False), [chosen], self.output, self.shards, bar.update
            )
        print(f"{count} records in {self.output}")

    def _set(self) -> SelectedSet:
        from unsup_fg.selection import read_selection

        sets = read_selection(self.selection)
        wanted = None if self.soft is None else str(self.soft.resolve())
        found = [item for item in sets if wanted in (None, item.soft)]
        if len(found) != 1:
            raise UserError(f"{self.selection} is of {', '.join(item.soft for item in sets)}; name one with --soft")
        return found[0]


@dataclass(frozen=True, kw_only=True)
class Segment(SegmentArguments):
    """Segment single frames with a student: a palette PNG for each, in OUTPUT/<sequence>/."""

    settings: Annotated[StudentSettings, tyro.conf.OmitArgPrefixes] = field(default_factory=StudentSettings)

    def run(self) -> None:
        """Segment."""
        run_segment(UNSUP_FG, self, **changed_settings(self.settings))


@dataclass(frozen=True, kw_only=True)
class SoftMasks(InputArguments):
    """Write a student's soft masks in batches, for EvalSeg-Net and for the next generation.

    Grey PNGs at the size of the student's map; 255 is surely foreground. Finished sequences are skipped.
    """

    output: Path
    """Folder for the soft masks: OUTPUT/<sequence>/<frame>.png."""
    weights: str | None = None
    """Of a student: a file, an official checkpoint or a name; by default those that come with the package."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps. Under torchrun each process takes its GPU and its share of the sequences."""
    precision: str = "fp32"
    """fp32, bf16 or fp16."""

    def run(self) -> None:
        """Write them."""
        from tqdm import tqdm

        from unsup_fg.labelling import student_tree, write_student_masks
        from unsup_fg.students import loaded
        from vos_shared.processing import bar_hidden
        from vos_shared.results import check_places
        from vos_shared.runtime.distributed import shard

        sequences = shard(self.load(masks_required=False))
        student = loaded(self.weights, STUDENTS, self.device, self.precision)
        tree = student_tree(self.output, self.weights, self.precision)
        check_places([tree], [sequence.name for sequence in sequences])
        with tqdm(total=sum(len(one.frame_names) for one in sequences), unit="frame", disable=bar_hidden()) as bar:
            write_student_masks(student, sequences, tree, bar.update)
        print(f"{len(sequences)} {'sequence' if len(sequences) == 1 else 'sequences'} in {escaped(str(self.output))}")


@dataclass(frozen=True, kw_only=True)
class ImportWeights(ConvertArguments):
    """Turn an official TensorFlow checkpoint into a safetensors file, or a file of ours into an official one."""

    def run(self) -> None:
        """Convert."""
        from unsup_fg.checkpoints import load_weights, save_weights
        from unsup_fg.official import to_official

        to_ours = self.to_ours(None)
        snapshot = load_weights(self.source)
        if to_ours:
            save_weights(self.output, snapshot.network, snapshot.architecture, snapshot.metadata, half=self.half)
        else:
            from vos_shared.checkpoints.tensorflow import write_checkpoint

            write_checkpoint(self.output, to_official(snapshot.network, snapshot.architecture.network))
        print(f"{snapshot.description}: {self.output}")


@dataclass(frozen=True, kw_only=True)
class Score:
    """Score soft masks with EvalSeg-Net and list those that reach a threshold."""

    images: Annotated[Path, tyro.conf.Positional]
    """Folder with <folder>/<frame>.jpg or .png."""
    masks: Annotated[Path, tyro.conf.Positional]
    """Folder with soft masks, <folder>/<frame>.png."""
    weights: str | None = None
    """Of EvalSeg-Net: a file of ours, an official checkpoint or a name; by default those that come with the package."""
    output: Path
    """Text file to write: <folder>/<frame>.png;<score>, a line for each mask that reaches the threshold."""
    threshold: float | None = None
    """Smallest score of listed masks; by default what the weights ask for, else the paper's 80."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1 or mps."""
    precision: str = "fp32"
    """fp32, bf16 or fp16."""

    def run(self) -> None:
        """Score."""
        from tqdm import tqdm

        from unsup_fg.scoring import pairs, scores, threshold_of, write_scores
        from unsup_fg.students import loaded
        from vos_shared.processing import bar_hidden

        found = pairs(self.images, self.masks)
        evalseg = loaded(self.weights or EVALSEG, ["evalseg"], self.device, self.precision)
        scored = list(tqdm(scores(evalseg, found), total=len(found), unit="mask", disable=bar_hidden()))
        threshold = threshold_of(self.weights or EVALSEG) if self.threshold is None else self.threshold
        count = write_scores(self.output, scored, threshold)
        print(f"{count} of {len(found)} masks reach {threshold:g}: {self.output}")


def main() -> None:
    """Run the ``unsup-fg`` command."""
    commands: dict[str, Callable[..., Any]] = {
        "run": Run,
        "videopca": VideoPCACommand,
        "select": Select,
        "records": WriteRecords,
        "train": Train,
        "segment": Segment,
        "soft-masks": SoftMasks,
        "score": Score,
        "weights": partial(WeightsCommand, table=WEIGHTS),
        "import-weights": ImportWeights,
    }
    run_commands("unsup-fg", "Unsupervised learning of foreground from video.", commands)
