"""The page at the end of a run: what each stage kept, as one HTML file."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, StrictUndefined
from PIL import Image

from unsup_fg.data_sets import DataSet, frame_count
from unsup_fg.scoring import judged
from unsup_fg.selection import read_selection, read_soft_mask
from vos_shared.atomic import write_text
from vos_shared.checkpoints import safetensors_io
from vos_shared.files import read_json
from vos_shared.training.run import LAST

if TYPE_CHECKING:
    from unsup_fg.pipeline import Pipeline
    from unsup_fg.settings import NetworkName
    from vos_shared.datasets import VideoSequence

EXAMPLES: Final = 16
"""Frames that are shown, of as many videos."""
BINS: Final = 40
_SIDE: Final = 160
"""Pixels of the longer side of a picture."""

Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Histogram:
    """Scores of all masks of a stage, and of those that were kept.

    Attributes:
        title: of the stage.
        low: least score.
        high: greatest score.
        every: masks by score, in equal bins.
        kept: the same of those that were kept.
        masks: number of all masks.
        empty: number of those without an object.
    """

    title: str
    low: float
    high: float
    every: Sequence[int]
    kept: Sequence[int]
    masks: int
    empty: int


@dataclass(frozen=True)
class Shown:
    """A picture with what is said below it."""

    picture: str
    caption: str


def write_page(
    path: Path, run: Pipeline, sets: Sequence[DataSet], left_out: Mapping[str, str], unreadable: Mapping[str, str]
) -> None:
    """Write the page of a finished run.

    Args:
        path: of the HTML file.
        run: the run.
        sets: the videos that it used.
        left_out: videos that are too short, by name, and why.
        unreadable: videos that cannot be read, by name, and why.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("unsup_fg").joinpath("page.html").read_text("utf-8"))
    page = template.render(
        sets=[(data.name, len(data.sequences), frame_count(data.sequences)) for data in sets],
        left_out=left_out,
        unreadable=unreadable,
        settings=run.settings,
        histograms=[_teacher_histogram(run, sets), _student_histogram(run, sets)],
        trainings=list(_trainings(run)),
        heads=[
            "frame",
            "VideoPCA",
            *run.settings.masks,
            *(f"{name}, generation 2" for name in run.settings.second),
        ],
        rows=list(_rows(run, sets)),
    )
    write_text(path, page)


def _teacher_histogram(run: Pipeline, sets: Sequence[DataSet]) -> Histogram:
    scores = [score for data in sets for score in _scores(run.folder.scores_file(data))]
    return _histogram(run, 1, "Masks of VideoPCA: mean of the pixels that are not zero, 0 to 255", scores)


def _student_histogram(run: Pipeline, sets: Sequence[DataSet]) -> Histogram:
    scores = [
        s for data in sets for name in run.settings.candidates for s in _scores(run.folder.scores_file(data, name))
    ]
    return _histogram(run, 2, "Masks for the second generation: scores of EvalSeg-Net, about 0 to 100", scores)


def _histogram(run: Pipeline, generation: int, title: str, scores: Sequence[float]) -> Histogram:
    selected = read_selection(run.folder.selection_file(generation))
    kept = [item.score for found in selected for item in found.kept]
    low, high = min(scores), max(scores)
    every, chosen = (np.histogram(part, BINS, (low, high))[0].tolist() for part in (scores, kept))
    masks, empty = sum(found.masks for found in selected), sum(found.empty for found in selected)
    return Histogram(title, low, high, every, chosen, masks, empty)


def _scores(path: Path) -> Sequence[float]:
    content: dict[str, float] = read_json(path)
    return list(content.values())


def _trainings(run: Pipeline) -> Iterator[tuple[str, int, str, str, str]]:
    """Of each network: name, generation, records, steps, and the last logged loss."""
    networks: list[tuple[NetworkName, int]] = [(name, 1) for name in run.settings.students]
    networks += [("evalseg", 1), *((name, 2) for name in run.settings.second)]
    for network, generation in networks:
        folder = run.folder.training_folder(network, generation)
        metadata = safetensors_io.read_metadata(folder / LAST)
        loss = _last_loss(folder / "log.jsonl")
        yield network, generation, metadata["records"].partition(" ")[0], metadata["steps"], loss


def _last_loss(log: Path) -> str:
    if not log.is_file():
        return "not logged"  # So short was the run.
    return f"{json.loads(log.read_text('utf-8').splitlines()[-1])['train/loss']:.1f}"


def _rows(run: Pipeline, sets: Sequence[DataSet]) -> Iterator[list[Shown]]:
    """Example frames: the frame, the teacher's mask, and those of the students with their EvalSeg scores."""
    evalseg = run.loaded("evalseg", 1)
    newest = {name: run.loaded(name, 2) for name in run.settings.second}
    for data, sequence in _examples(sets):
        index = len(sequence.frame_names) // 2
        frame, name = sequence.video[index], f"{sequence.name}/{sequence.frame_names[index]}.png"
        masks = {"VideoPCA": read_soft_mask(run.folder.teacher_masks(data).root / name)}
        for student in run.settings.masks:
            masks[student] = read_soft_mask(run.folder.student_masks(student, data).root / name)
        masks |= {
            f"{student}, 2": (student_.maps([frame])[0] + 0.5).clip(0, 255).astype(np.uint8)
            for student, student_ in newest.items()
        }
        scores = judged(evalseg, [(frame, mask) for mask in masks.values()])
        size = _size(frame)
        yield [
            Shown(_embedded(frame, size), name.removesuffix(".png")),
            *(Shown(_embedded(mask, size), f"{score:.0f}") for mask, score in zip(masks.values(), scores, strict=True)),
        ]


def _examples(sets: Sequence[DataSet]) -> Sequence[tuple[DataSet, VideoSequence]]:
    """Videos evenly spread over all."""
    every = [(data, sequence) for data in sets for sequence in data.sequences]
    chosen = np.linspace(0, len(every) - 1, min(EXAMPLES, len(every))).round().astype(int)
    return [every[index] for index in chosen]


def _size(frame: Picture) -> tuple[int, int]:
    """Width and height at which a frame is shown."""
    height, width = frame.shape[:2]
    scale = _SIDE / max(height, width)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _embedded(picture: Any, size: tuple[int, int]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR).save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
