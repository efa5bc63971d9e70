"""Training of the shipped weights, one command per method.

`python tools/train_demo_weights.py dense-ulearn --videos .. --davis .. --output ..` (or `osmn ..`, `amd-objectness ..`,
`spn-instances ..`, `unsup-fg ..`) trains until Ctrl-C or the end; the same command resumes it. `.. publish` turns the
snapshot into the shipped file. `.. judge` scores it on DAVIS sequences, beside a baseline that repeats the first mask.
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

from vos_shared.cli import STOPPED, run_cli
from vos_shared.errors import UserError

HELD_OUT = ("breakdance-flare", "car-turn", "horsejump-low", "mallard-fly")
"""Sequences of DAVIS-2016 train on which settings were compared; training leaves them out."""
SETTINGS = (
    "--batch=4 --clips-per-video=4 --seed=0 --gap=5 --crop=128 --shorter-side 160 240 "
    "--lr=3e-4 --weight-decay=1e-5 --schedule=step --step-epochs=9 --gamma=0.3"
)
"""Settings for two hours on two shared CPU cores: small crops, small batches; the rate falls three times."""
SYNTHETIC_CLIPS = 8

AMD_SETTINGS = (
    "--backbone resnet18 --width 32 --head-width 128 --motion-size 64 64 --standardise --crop 64 --shorter-side 76 "
    "--gap 5 --shift 4 --flip --batch 6 --steps 11000 --flow-steps 3000 --lr 8e-4 --warm-up 100 --picture-steps 500 "
    "--precision bf16"
)
"""A narrow network and tiny frames: a step takes a quarter of a second of one core. Step 4,440 is shipped."""
AMD_SYNTHETIC_CLIPS = 40

UNSUP_SETTINGS = (
    "--students basic-unet dense-unet dilate-unet --second dilate-unet --fixed --input-size 128 --top 0.25 "
    "--second-top 0.6 --consensus --every 4 --decay --norm-momentum 0.1 "
    "--width basic-unet 0.125 dense-unet 0.25 dilate-unet 0.25 evalseg 0.0625 "
    "--steps basic-unet 2400 dense-unet 1600 dilate-unet 2400 evalseg 2000 --batch basic-unet 8 dense-unet 8 "
    "dilate-unet 8 evalseg 12 --learning-rate basic-unet 0.01 dense-unet 0.01 dilate-unet 0.01 evalseg 0.001 "
    "--precision bf16"
)
"""Narrow networks and short runs with higher rates, for an hour of one core."""

OSMN_NETWORK = "--variant lite --head-width 192"
OSMN_COMMON = "--batch-size 8 --fix-trunk-bn --fixed-seg-blocks 3 --fixed-modulator-blocks 12 --seed 1234"
"""Settings for an hour or two on two CPU cores: the first blocks keep their ImageNet weights."""
OSMN_STAGES = (
    "--steps 1200 --drop-at 1000 --learning-rate 2e-4 --size 256 320 --scales 0.8 1.0 1.2",
    "--steps 900 --drop-at 600 --learning-rate 1e-4 --size 240 432 --scales 0.75 0.9 1.0",
)
"""Stage 1 on photographs and synthetic clips, stage 2 on DAVIS-2016 train."""

SPN_PARENT = "--trunk mobilenet --preset small --size 240 424 --scale 0.4 --rotation 10 --steps 1500"
SPN_REFINEMENT = "--start random --width 8 --channels 8 --batch-size 6 --crop 96 --steps 700 --shorter-side 240"
"""Small networks that one shared CPU core trains in an hour; the foreground net with our AdamW."""


@dataclass(frozen=True, kw_only=True)
class TrainDenseUlearn:
    """Train the weights that come with dense-ulearn: real clips, DAVIS-2016 train without masks, synthetic clips."""

    videos: Path
    """Folder of unlabelled video files."""
    davis: Path
    """DAVIS folder; the frames of its train list are used, its masks are not."""
    output: Path
    """Folder of the run; the same command resumes it."""
    epochs: int = 27
    """Last epoch; with 64 videos 28 epochs are 1,792 steps, as shipped."""
    workers: int = 1
    """Processes that read clips."""

    def run(self) -> int:
        """Train."""
        places = [self.videos, write_synthetic(self.output / "synthetic"), *training_folders(self.davis)]
        words = ["--videos", *map(str, places), *shlex.split(SETTINGS), f"--epochs={self.epochs}"]
        _train("dense-ulearn", self.output, "custom", *words, f"--workers={self.workers}")
        return 0


@dataclass(frozen=True, kw_only=True)
class TrainOsmn:
    """Train the weights that come with osmn: photographs and synthetic clips, then DAVIS-2016 train."""

    images: Path
    """Folder with images/ and masks/."""
    davis: Path
    """DAVIS folder; the sequences of its train list are used."""
    mobilenet: Path
    """Keras' MobileNet-v1 trained on ImageNet, npz."""
    output: Path
    """Folder of the run; the same command resumes it."""
    workers: int = 1
    """Processes that read samples."""

    def run(self) -> int:
        """Train both stages."""
        synthetic = self.output / "synthetic"
        if not synthetic.is_dir():
            _call("vos", "demo-data", str(synthetic), "--clips", str(SYNTHETIC_CLIPS), "--seed", "1000")
        first, second = self.output / "stage1", self.output / "stage2"
        sources = ["images", "--images", str(self.images), "--davis", str(synthetic), "--weights", str(self.mobilenet)]
        self._stage(first, [*sources, *shlex.split(OSMN_NETWORK), *shlex.split(OSMN_STAGES[0])])
        sources = ["davis", "--root", str(self.davis), "--dataset", "davis2016", "--exclude", *HELD_OUT]
        self._stage(second, [*sources, "--weights", str(first / "last.safetensors"), *shlex.split(OSMN_STAGES[1])])
        return 0

    def _stage(self, folder: Path, words: list[str]) -> None:
        _train("osmn", folder, *words, *shlex.split(OSMN_COMMON), f"--workers={self.workers}")


@dataclass(frozen=True, kw_only=True)
class TrainAmdObjectness:
    """Train the weights that come with amd-objectness: real clips, DAVIS-2016 train without masks, synthetic clips."""

    videos: Path
    """Folder of unlabelled video files."""
    davis: Path
    """DAVIS folder; the frames of its train list are used, its masks are not."""
    output: Path
    """Folder of the run; the same command resumes it."""
    workers: int = 0
    """Processes that read pairs."""

    def run(self) -> int:
        """Train."""
        places = [
            self.videos,
            write_synthetic(self.output / "synthetic", AMD_SYNTHETIC_CLIPS),
            *training_folders(self.davis),
        ]
        words = ["--videos", *map(str, places), *shlex.split(AMD_SETTINGS), f"--workers={self.workers}"]
        _train("amd-objectness", self.output, "custom", *words)
        return 0


@dataclass(frozen=True, kw_only=True)
class TrainSpnInstances:
    """Train the weights that come with spn-instances: the parent on DAVIS-2016 train and photographs, then the SPN."""

    images: Path
    """Folder with images/ and masks/."""
    davis: Path
    """DAVIS folder; the sequences of its train list are used."""
    mobilenet: Path
    """Keras' MobileNet-v1 trained on ImageNet, npz."""
    output: Path
    """Folder of the run; the same command resumes it."""
    workers: int = 0
    """Processes that read samples."""

    def run(self) -> int:
        """Train both networks."""
        frames = ["--root", str(self.davis), "--dataset", "davis2016", "--exclude", *HELD_OUT]
        photographs = ["--images", str(self.images)]
        parent = [*frames, *photographs, "--start", str(self.mobilenet), *shlex.split(SPN_PARENT)]
        for stage, words in (("parent", parent), ("spn", [*photographs, *shlex.split(SPN_REFINEMENT)])):
            _train("spn-instances", self.output / stage, stage, *words, f"--workers={self.workers}")
        return 0


@dataclass(frozen=True, kw_only=True)
class TrainUnsupFg:
    """Train the weights that come with unsup-fg: real clips, DAVIS-2016 train without masks, synthetic clips."""

    videos: Path
    """Folder of unlabelled video files."""
    davis: Path
    """DAVIS folder; the frames of its train list are used, its masks are not."""
    output: Path
    """Folder of the run; the same command resumes it."""
    workers: int = 0
    """Processes that read records."""

    def run(self) -> int:
        """Run both iterations."""
        davis = self.output / "davis"
        davis.mkdir(parents=True, exist_ok=True)
        for folder in training_folders(self.davis):
            if not (davis / folder.name).is_symlink():
                (davis / folder.name).symlink_to(folder.resolve())
        places = [self.videos, davis, write_synthetic(self.output / "synthetic")]
        words = ["run", *map(str, places), "--output", str(self.output / "run"), *shlex.split(UNSUP_SETTINGS)]
        _call("unsup-fg", *words, f"--workers={self.workers}", "--minutes=3")
        return 0


def _patient_call(command: list[str]) -> int:
    """Run a command; it gets Ctrl-C as well, and time to save."""
    with subprocess.Popen(command) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                continue


def _call(program: str, *words: str) -> None:
    """Run a command of this environment.

    Raises:
        UserError: it failed; it has printed the reason.
        KeyboardInterrupt: it was asked to stop.
    """
    code = _patient_call([str(Path(sys.executable).with_name(program)), *words])
    if code == STOPPED:
        raise KeyboardInterrupt
    if code:
        raise UserError(f"{program} {words[0]} ended with {code}")


def _train(program: str, folder: Path, *words: str) -> None:
    """Run the ``train`` command of a method; resumes the run in `folder`. Raises as `_call`."""
    resume = ["--resume"] if (folder / "resume.pt").exists() else []
    _call(program, "train", *words, "--output", str(folder), "--minutes=3", *resume)


def write_synthetic(folder: Path, clips: int = SYNTHETIC_CLIPS) -> Path:
    """Write synthetic clips as folders of frames, unless they exist."""
    from vos_shared.datasets.synthetic import clip
    from vos_shared.results import partial_folder

    for index in range(clips):
        place = folder / f"synthetic_{index}"
        if place.is_dir():
            continue
        with partial_folder(folder, place.name) as partial:  # A clip appears as a whole.
            for number, frame in enumerate(clip(1000 + index)[0]):
                Image.fromarray(frame).save(partial / f"{number:05d}.jpg", quality=95)
            partial.rename(place)
    return folder


def training_folders(davis: Path) -> list[Path]:
    """Folders of frames of the train list, without `HELD_OUT`."""
    from vos_shared.datasets import davis2016

    names = [sequence.name for sequence in davis2016(davis, "train")]
    (frames,) = [folder for folder in (davis / "JPEGImages").iterdir() if (folder / names[0]).is_dir()]
    return [frames / name for name in names if name not in HELD_OUT]


@dataclass(frozen=True, kw_only=True)
class Publish:
    """Write a snapshot in half precision with its description."""

    snapshot: Path
    """Snapshot of the run: last.safetensors."""
    output: Path
    """The file that is shipped."""
    description: str
    """Description of the weights."""
    note: str
    """Data, hardware and time, as text."""
    scores: Path | None = None
    """JSON file of `judge`."""
    threshold: float | None = None
    """Of unsup-fg and amd-objectness: soft mask from which on a pixel is foreground, chosen on held-out training
    sequences."""
    channel: int | None = None
    """Of amd-objectness: segment that is the object, chosen on the same sequences."""

    def run(self) -> None:
        """Convert."""
        import torch

        from vos_shared.checkpoints import safetensors_io

        state, metadata = safetensors_io.load(self.snapshot)
        # Kernels are most of it; statistics of norms may be too large for half precision.
        half = {name: value.to(torch.float16) if value.ndim > 1 else value for name, value in state.items()}
        scores = {} if self.scores is None else json.loads(self.scores.read_text(encoding="utf-8"))
        said = {"description": self.description, "trained": "true", "note": self.note, "scores": json.dumps(scores)}
        if self.threshold is not None:
            said["threshold"] = str(self.threshold)
        if self.channel is not None:
            said["channel"] = str(self.channel)
        safetensors_io.save(self.output, half, {**metadata, **said})
        print(f"{self.output}: {self.output.stat().st_size / 1e6:.1f} MB")


@dataclass(frozen=True, kw_only=True)
class Judge:
    """J of the union of all objects on DAVIS sequences, first and last frame left out."""

    roots: tuple[Path, ...]
    """DAVIS folders; the sequences of all their val lists are used."""
    weights: tuple[str, ...] = ("copy", "")
    """What is compared: files or names that the method knows; `copy` repeats the first mask, "" is what is shipped."""
    method: str = "dense-ulearn"
    """Method of the weights."""
    input_size: int = -1
    """Pixels that the shorter side of frames is scaled to; -1: the method's default."""
    json: Path | None = None
    """JSON file for the numbers; numbers that it holds are not computed again."""

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
        from vos_shared.evaluation import evaluate

        with TemporaryDirectory() as results:
            folder = Path(results) / sequence.name
            folder.mkdir()
            _write_masks(self._masks(weights, sequence), sequence.frame_names, folder)
            mean: float = evaluate("davis2016", [sequence], results, progress=False).summary["J-Mean"]
            return mean

    def _masks(self, weights: str, sequence: Any) -> Iterator[Any]:
        prompts = [prompt for _, prompt in sequence.prompts()]
        if weights == "copy":
            return iter([prompts[0]] * len(prompts))
        from vos_shared.method import Supervision, discover

        methods, _ = discover()
        if self.method not in methods:
            raise UserError(f"no method {self.method} is installed")
        size: dict[str, Any] = (
            {} if self.input_size < 0 else {_SIZE_OPTION.get(self.method, "input_size"): self.input_size}
        )
        segmenter = methods[self.method].load(weights or None, **size)
        if methods[self.method].supervision is Supervision.NONE:
            segmenter.prepare(sequence.video)
            return (segmenter.step(frame).mask for frame in sequence.video)
        return (segmenter.step(frame, prompt).mask for frame, prompt in zip(sequence.video, prompts, strict=True))

    def _write(self, found: dict[str, dict[str, float]]) -> None:
        from vos_shared.atomic import write_json

        if self.json is not None:
            write_json(self.json, found)


_SIZE_OPTION = {"osmn": "shorter_side", "amd-objectness": "shorter_side"}
"""Name of the methods' option for the shorter side."""


def mean(scores: dict[str, float]) -> float:
    """Mean over sequences."""
    return sum(scores.values()) / len(scores)


def _write_masks(masks: Iterator[Any], names: Sequence[str], folder: Path) -> None:
    from vos_shared.masks import write_mask

    for name, mask in zip(names, masks, strict=True):
        write_mask(folder / f"{name}.png", mask)


Command = (
    Annotated[TrainDenseUlearn, tyro.conf.subcommand("dense-ulearn")]
    | Annotated[TrainOsmn, tyro.conf.subcommand("osmn")]
    | Annotated[TrainAmdObjectness, tyro.conf.subcommand("amd-objectness")]
    | Annotated[TrainSpnInstances, tyro.conf.subcommand("spn-instances")]
    | Annotated[TrainUnsupFg, tyro.conf.subcommand("unsup-fg")]
    | Annotated[Publish, tyro.conf.subcommand("publish")]
    | Annotated[Judge, tyro.conf.subcommand("judge")]
)

if __name__ == "__main__":
    sys.exit(run_cli(lambda: tyro.cli(Command, description=__doc__).run()))
