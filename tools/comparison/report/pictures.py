"""Frames and masks for the report's viewer: small, as data URIs, within a budget."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from vos_shared import datasets
from vos_shared.folders import mask_files
from vos_shared.masks import read_mask
from vos_shared.method import Frame, ObjectMask

BUDGET_BYTES = 11_000_000
"""Bytes of all pictures of a report together, as base64."""
WIDTH = 480
"""Largest width of a picture."""
MOST_SEQUENCES = 100
MOST_FRAMES = 48
"""Frames of one sequence at most; shared among the sequences, 600 in all."""
ALL_FRAMES = 600
JPEG_QUALITY = 72


@dataclass(frozen=True)
class Pictures:
    """One sequence in the viewer; all lists but `length` are by shown frame.

    Attributes:
        name: of the sequence.
        length: frames of the whole sequence.
        shown: numbers of the shown frames.
        pictures: JPEG data URIs.
        truth: PNG data URIs whose grey values are object ids; None where there is no annotation.
        masks: the same of each row; None where a file is missing.
    """

    name: str
    length: int
    shown: list[int]
    pictures: list[str]
    truth: list[str | None] | None
    masks: dict[str, list[str | None]]

    @property
    def size(self) -> int:
        """Bytes in the report."""
        masks = [uri for uris in [self.truth or [], *self.masks.values()] for uri in uris if uri]
        return sum(map(len, self.pictures)) + sum(map(len, masks))

    def every_other(self) -> Pictures:
        """Half of it."""
        return Pictures(
            self.name,
            self.length,
            self.shown[::2],
            self.pictures[::2],
            self.truth[::2] if self.truth else None,
            {label: uris[::2] for label, uris in self.masks.items()},
        )


def take_pictures(
    sequences: Sequence[datasets.VideoSequence], rows: Mapping[str, Path], *, show_truth: bool
) -> list[Pictures]:
    """Pictures of the first sequences, evenly spread over time and within the budget.

    Args:
        sequences: at most `MOST_SEQUENCES` of them are shown.
        rows: results folder of each row that has masks.
        show_truth: the annotations are true masks, not only a prompt.
    """
    chosen = sequences[:MOST_SEQUENCES]
    frames = min(MOST_FRAMES, max(4, ALL_FRAMES // max(1, len(chosen))))
    taken = []
    for sequence in chosen:
        pictures = _take(sequence, rows, frames, show_truth)
        while pictures.size > BUDGET_BYTES / len(chosen) and len(pictures.shown) > 1:
            pictures = pictures.every_other()
        taken.append(pictures)
    return taken


def _take(sequence: datasets.VideoSequence, rows: Mapping[str, Path], frames: int, show_truth: bool) -> Pictures:
    names = sequence.frame_names
    shown = sorted({round(i) for i in np.linspace(0, len(names) - 1, min(frames, len(names)))})
    wanted, aspect = set(shown), sequence.video.pixel_aspect
    return Pictures(
        sequence.name,
        len(names),
        shown,
        [_frame_uri(frame, aspect) for i, frame in enumerate(sequence.video) if i in wanted],
        [_mask_uri(sequence.annotation(names[i]), aspect) for i in shown] if show_truth else None,
        {
            label: [_mask_uri(_result(masks.get(names[i]), sequence.binary), aspect) for i in shown]
            for label, masks in ((label, mask_files(folder / sequence.name)) for label, folder in rows.items())
        },
    )


def _result(path: Path | None, binary: bool) -> ObjectMask | None:
    return None if path is None else read_mask(path, binary=binary)


def _shown_size(size: tuple[int, int], aspect: Fraction) -> tuple[int, int]:
    """Width and height with square pixels, of pixels whose width divided by height is `aspect`."""
    width, height = float(size[0] * aspect), size[1]
    factor = min(1.0, WIDTH / width)
    return max(1, round(width * factor)), max(1, round(height * factor))


def _frame_uri(frame: Frame, aspect: Fraction) -> str:
    image = Image.fromarray(frame)
    small = image.resize(_shown_size(image.size, aspect), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return _uri(small, "jpeg", quality=JPEG_QUALITY)


def _mask_uri(mask: ObjectMask | None, aspect: Fraction) -> str | None:
    """Encode as grey PNG: browsers decode grey values exactly, and they are the ids."""
    if mask is None:
        return None
    image = Image.fromarray(mask)
    return _uri(image.resize(_shown_size(image.size, aspect), Image.Resampling.NEAREST), "png", optimize=True)


def _uri(image: Image.Image, kind: str, **options: int | bool) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
