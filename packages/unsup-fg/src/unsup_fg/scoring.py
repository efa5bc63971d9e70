"""Scores of EvalSeg-Net for soft masks, as the official program writes them (specification, section 8)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch

from unsup_fg.frame_file import SoftMask
from unsup_fg.selection import Scored, read_soft_mask
from unsup_fg.students import Student, batched, image_tensor
from unsup_fg.weights import WEIGHTS
from vos_shared.atomic import write_text
from vos_shared.checkpoints.safetensors_io import read_metadata
from vos_shared.errors import BadDataset
from vos_shared.method import Frame
from vos_shared.video_sources import read_frame

if TYPE_CHECKING:
    from vos_shared.datasets import VideoSequence

PAPER_THRESHOLD: Final = 80.0
_IMAGES: Final = (".jpg", ".jpeg", ".png")


def pairs(images: Path, masks: Path) -> list[tuple[str, Path, Path]]:
    """Find images and soft masks in parallel trees.

    Args:
        images: folder with ``<folder>/<frame>.jpg`` or ``.png``.
        masks: folder with ``<folder>/<frame>.png``.

    Returns:
        For every mask: its name in its tree, the image, and the mask.

    Raises:
        BadDataset: there are no masks, or one has no image.
    """
    found = []
    for mask in sorted(path for path in masks.glob("*/*.png") if not path.name.startswith(".")):
        name = mask.relative_to(masks)
        image = next((path for end in _IMAGES if (path := images / name.with_suffix(end)).is_file()), None)
        if image is None:
            raise BadDataset(f"mask {mask} has no image {images / name.with_suffix('.jpg')}")
        found.append((name.as_posix(), image, mask))
    if not found:
        raise BadDataset(f"{masks} has no masks (<folder>/<frame>.png)")
    return found


def scores(evalseg: Student, found: Sequence[tuple[str, Path, Path]]) -> Iterator[tuple[str, float]]:
    """Compute the scores of masks; scores are about 0 to 100.

    Raises:
        BadVideo: an image cannot be read, or has more than 8 bits a channel.
        BadDataset: a mask cannot be read.
    """
    for part in batched(found):
        pictures = [(read_frame(image), read_soft_mask(mask)) for _, image, mask in part]
        yield from zip((name for name, _, _ in part), judged(evalseg, pictures), strict=True)


def threshold_of(weights: str | Path) -> float:
    """Score from which on a mask is good, by the weights of an EvalSeg-Net; the paper's 80 unless they say another.

    Raises:
        BadWeights: no such weights.
    """
    path = WEIGHTS.locate(weights)
    said = read_metadata(path).get("score_threshold") if path.suffix == ".safetensors" else None
    return float(said) if said else PAPER_THRESHOLD


def write_scores(path: Path, found: Sequence[tuple[str, float]], threshold: float) -> int:
    """Write the masks whose score reaches the threshold, a line ``<folder>/<frame>.png;<score>`` each.

    Returns:
        The number of lines.
    """
    lines = [f"{name};{score:.6g}\n" for name, score in found if score >= threshold]
    write_text(path, "".join(lines))
    return len(lines)


def frame_scores(evalseg: Student, sequence: VideoSequence, masks: Path) -> Iterator[Scored]:
    """Compute the scores of the soft masks of a sequence, ``<sequence>/<frame>.png``; empty masks are skipped.

    Raises:
        BadVideo: a frame cannot be read.
        BadDataset: a mask cannot be read.
    """
    names = (f"{sequence.name}/{name}.png" for name in sequence.frame_names)
    pictures = ((name, frame, read_soft_mask(masks / name)) for name, frame in zip(names, sequence.video, strict=True))
    for part in batched(picture for picture in pictures if picture[2].any()):
        yield from (
            Scored(name, score)
            for (name, _, _), score in zip(part, judged(evalseg, [item[1:] for item in part]), strict=True)
        )


def judged(evalseg: Student, pictures: Sequence[tuple[Frame, SoftMask]]) -> list[float]:
    """Compute the scores of a batch of frames, uint8 [H, W, 3], with their soft masks, uint8 [h, w]."""
    images = torch.stack([image_tensor(image, evalseg.size) for image, _ in pictures])
    masks = torch.stack([image_tensor(mask, evalseg.size) for _, mask in pictures])
    scores: list[float] = evalseg.run(images, masks).tolist()
    return scores
