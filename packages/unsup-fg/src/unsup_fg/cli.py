"""The ``unsup-fg`` command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from unsup_fg.method import VIDEOPCA
from vos_shared.cli import run_commands
from vos_shared.errors import UserError
from vos_shared.inputs import InputArguments

if TYPE_CHECKING:
    from vos_shared.datasets import VideoSequence


@dataclass(frozen=True, kw_only=True)
class VideoPCACommand(InputArguments):
    """Find the moving foreground of videos without any training.

    Give --output for object masks, --soft for soft masks, or both. Sequences that are finished there, from the same
    input with the same settings, are not redone. Each sequence counts as one shot: cut videos at their cuts first.
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

    def run(self) -> None:
        """Label what is not labelled yet, draw it, write the times."""
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
        process(sequences, segmenter, outputs, supervision=VIDEOPCA.supervision, device=segmenter.device)
        if self.overlay:
            draw(sequences, outputs[0].tree)
        if self.timing is not None:
            write_timing(sequences, outputs[0].tree, self.timing)
        folders = [
            f"{kind} in {folder}" for kind, folder in (("masks", self.output), ("soft masks", self.soft)) if folder
        ]
        print(f"{len(sequences)} {'sequence' if len(sequences) == 1 else 'sequences'}: {', '.join(folders)}")

    def _worth_labelling(self, sequences: list[VideoSequence]) -> list[VideoSequence]:
        """Leave out, and say so, what is too short to tell background from foreground."""
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


def main() -> None:
    """Run the ``unsup-fg`` command."""
    run_commands("unsup-fg", "Unsupervised learning of foreground from video.", {"videopca": VideoPCACommand})
