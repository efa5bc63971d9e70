"""How the shipped weights came to be, one command a method.

`python tools/train_demo_weights.py dense-ulearn --videos .. --davis .. --output ..` trains until Ctrl-C (or the last
epoch) and goes on where it stopped when called again; `.. publish` turns the snapshot into the shipped file; `.. judge`
scores it beside the same network untrained and beside the first mask repeated.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import tyro
from PIL import Image

from vos_shared.cli import run_cli
from vos_shared.errors import UserError

HELD_OUT = ("breakdance-flare", "car-turn", "horsejump-low", "mallard-fly")
"""Sequences of DAVIS-2016 train that settings were compared on; not trained on."""
SETTINGS = (
    "--batch=4 --clips-per-video=4 --seed=0 --gap=5 --crop=128 --shorter-side 160 240 "
    "--lr=3e-4 --weight-decay=1e-5 --schedule=step --step-epochs=4 --gamma=0.3"
)
"""What two shared CPU cores can do in an hour: small crops, small batches; the rate falls once, near the end."""
SYNTHETIC_CLIPS = 8


@dataclass(frozen=True, kw_only=True)
class TrainDenseUlearn:
    """Train the weights that come with dense-ulearn: real clips, DAVIS-2016 train without masks, synthetic clips."""

    videos: Path
    """Folder of unlabelled video files."""
    davis: Path
    """DAVIS folder; the frames of its train list are used, its masks are not."""
    output: Path
    """Folder of the run; called again, the run goes on."""
    epochs: int = 5
    """Last epoch; with 64 videos six epochs are 384 steps, as shipped."""
    workers: int = 1
    """Processes that read clips."""

    def run(self) -> int:
        """Train."""
        places = [self.videos, write_synthetic(self.output / "synthetic"), *training_folders(self.davis)]
        command = [
            str(Path(sys.executable).with_name("dense-ulearn")), "train", "custom",
            "--videos", *map(str, places), "--output", str(self.output), *shlex.split(SETTINGS),
            f"--epochs={self.epochs}", f"--workers={self.workers}", "--minutes=2",
        ]  # fmt: skip
        if (self.output / "resume.pt").exists():
            command.append("--resume")
        return subprocess.call(command)


def write_synthetic(folder: Path) -> Path:
    """Write synthetic clips as folders of frames, unless they are there."""
    from vos_shared.datasets.synthetic import clip

    for index in range(SYNTHETIC_CLIPS):
        place = folder / f"synthetic_{index}"
        if place.is_dir():
            continue
        place.mkdir(parents=True)
        for number, frame in enumerate(clip(1000 + index)[0]):
            Image.fromarray(frame).save(place / f"{number:05d}.jpg", quality=95)
    return folder


def training_folders(davis: Path) -> list[Path]:
    """Folders of frames of the train list without `HELD_OUT`."""
    from vos_shared.datasets import davis2016

    names = [sequence.name for sequence in davis2016(davis, "train")]
    (frames,) = [folder for folder in (davis / "JPEGImages").iterdir() if (folder / names[0]).is_dir()]
    return [frames / name for name in names if name not in HELD_OUT]


@dataclass(frozen=True, kw_only=True)
class Publish:
    """Write a snapshot in half precision with a word on what it is."""

    snapshot: Path
    """Of the run: last.safetensors."""
    output: Path
    """The file that is shipped."""
    note: str
    """Data, hardware and time, in words."""
    scores: Path | None = None
    """JSON file of `judge`."""

    def run(self) -> None:
        """Convert."""
        import torch

        from vos_shared.checkpoints import ours

        state, metadata = ours.load(self.snapshot)
        half = {name: value.to(torch.float16) if value.is_floating_point() else value for name, value in state.items()}
        scores = {} if self.scores is None else json.loads(self.scores.read_text(encoding="utf-8"))
        description = f"demo weights, {metadata['step']} steps on unlabelled video"
        kept = {name: metadata[name] for name in ("step", "epoch", "hours", "settings")}
        said = {"description": description, "trained": "true", "note": self.note, "scores": json.dumps(scores)}
        ours.save(self.output, half, {**said, **kept, "command": f"dense-ulearn train custom {SETTINGS}"})
        print(f"{self.output}: {self.output.stat().st_size / 1e6:.1f} MB")


@dataclass(frozen=True, kw_only=True)
class Judge:
    """J of the union of all objects on DAVIS sequences, first and last frame left out."""

    roots: tuple[Path, ...]
    """DAVIS folders; the sequences of their val lists are taken together."""
    weights: tuple[str, ...] = ("copy", "untrained", "")
    """What is compared: `copy` repeats the first mask, "" are the shipped weights."""
    method: str = "dense-ulearn"
    """Whose weights."""
    input_size: int = -1
    """Length of the shorter side that frames are scaled to; -1 leaves them as they are."""
    json: Path | None = None
    """Write the numbers here, too; numbers that are there already are not computed again."""

    def run(self) -> None:
        """Score and print."""
        from vos_shared.datasets import davis2016

        found: dict[str, dict[str, float]] = {}
        if self.json is not None and self.json.is_file():
            found = json.loads(self.json.read_text(encoding="utf-8"))
        for weights in self.weights:
            scores = found.setdefault(weights or "shipped", {})
            for sequence in (sequence for root in self.roots for sequence in davis2016(root)):
                if sequence.name not in scores:
                    scores[sequence.name] = self._score(weights, sequence)
                    self._write(found)
            print(f"{weights or 'shipped':10} {mean(scores):.3f} ", {name: round(j, 3) for name, j in scores.items()})

    def _score(self, weights: str, sequence: Any) -> float:
        from vos_shared.evaluation import evaluate_sequence

        with TemporaryDirectory() as results:
            folder = Path(results) / sequence.name
            folder.mkdir()
            _write_masks(self._masks(weights, sequence), sequence.frame_names, folder)
            return evaluate_sequence("davis2016", sequence, results).summary["J-Mean"]

    def _masks(self, weights: str, sequence: Any) -> Iterator[Any]:
        prompts = [prompt for _, prompt in sequence.prompts()]
        if weights == "copy":
            return iter([prompts[0]] * len(prompts))
        from vos_shared.method import discover

        methods, _ = discover()
        if self.method not in methods:
            raise UserError(f"no method {self.method} is installed")
        segmenter = methods[self.method].load(weights or None, input_size=self.input_size)
        return (segmenter.step(frame, prompt).mask for frame, prompt in zip(sequence.video, prompts, strict=True))

    def _write(self, found: dict[str, dict[str, float]]) -> None:
        from vos_shared.atomic import write_json

        if self.json is not None:
            write_json(self.json, found)


def mean(scores: dict[str, float]) -> float:
    """Mean over sequences."""
    return sum(scores.values()) / len(scores)


def _write_masks(masks: Iterator[Any], names: Sequence[str], folder: Path) -> None:
    from vos_shared.masks import write_mask

    for name, mask in zip(names, masks, strict=True):
        write_mask(folder / f"{name}.png", mask)


Command = (
    Annotated[TrainDenseUlearn, tyro.conf.subcommand("dense-ulearn")]
    | Annotated[Publish, tyro.conf.subcommand("publish")]
    | Annotated[Judge, tyro.conf.subcommand("judge")]
)

if __name__ == "__main__":
    sys.exit(run_cli(lambda: tyro.cli(Command, description=__doc__).run()))
